"""The only module that talks to the Kubernetes API.

It translates and never decides: plain objects in and out, every call bounded in time, and every way
that an API server can refuse turned into one of our errors with one sentence. What may safely be
repeated is repeated; a create whose answer got lost is recognized as our own.

Secret values pass through here from Secret to Secret and go nowhere else; ``secret_keys`` tells
names only. Port-forwards are the one thing the asyncio half of the client cannot do.
"""

import asyncio
import base64
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import aiohttp
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION
from typing_extensions import override

from flashrun.api import names
from flashrun.cluster_errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NoCluster,
    NotFound,
    Unreachable,
)

CALL_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 5.0
TRIES: Final = 4
PAGE: Final = 500
"""Objects per answer of a list."""

Object = dict[str, Any]

_DISRUPTED: Final = "DisruptionTarget"
_RETRIED_STATUS: Final = frozenset({429, 500, 502, 503, 504})
_KUBECONFIG_ERRORS: Final = (
    config.ConfigException,
    yaml.YAMLError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)
"""What the client raises over a kubeconfig, which is any file that someone wrote."""
_NAMESPACE_FILE: Final = Path(SERVICE_TOKEN_FILENAME).with_name("namespace")


class Resource(NamedTuple):
    """Where the API keeps objects of one kind."""

    api_version: str
    plural: str
    namespaced: bool = True

    @property
    def full_name(self) -> str:
        """Plural and group, as RBAC rules and ``kubectl`` take it."""
        group, slash, _ = self.api_version.partition("/")
        return f"{self.plural}.{group}" if slash else self.plural

    def path(self, namespace: str | None, name: str = "") -> str:
        """Return the URL path of a collection, or of one object in it."""
        root = "/apis" if "/" in self.api_version else "/api"
        inside = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}/{self.api_version}{inside}/{self.plural}{name and '/' + name}"


class _Document(Resource):
    """What the API server says of itself, at a path of its own."""

    @override
    def path(self, namespace: str | None, name: str = "") -> str:
        return self.api_version


RESOURCES: Final[Mapping[str, Resource]] = {
    names.KIND: Resource(names.API_VERSION, names.PLURAL),
    "Job": Resource("batch/v1", "jobs"),
    "Pod": Resource("v1", "pods"),
    "Secret": Resource("v1", "secrets"),
    "ConfigMap": Resource("v1", "configmaps"),
    "Event": Resource("v1", "events"),
    "ResourceQuota": Resource("v1", "resourcequotas"),
    "LocalQueue": Resource("kueue.x-k8s.io/v1beta1", "localqueues"),
    "Service": Resource("v1", "services"),
    "Lease": Resource("coordination.k8s.io/v1", "leases"),
    "Namespace": Resource("v1", "namespaces", namespaced=False),
    "Node": Resource("v1", "nodes", namespaced=False),
    "CustomResourceDefinition": Resource(
        "apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False
    ),
}


class Connection(NamedTuple):
    """How to reach the API server, for another client in the same process."""

    server: str
    ca_path: str | None
    certificate_path: str | None
    key_path: str | None
    token: str | None
    insecure: bool


class Request(NamedTuple):
    """One call, in the words that its errors use."""

    verb: str
    method: str
    resource: Resource
    namespace: str | None
    name: str = ""
    subresource: str = ""
    query: tuple[tuple[str, str], ...] = ()
    body: Object | None = None
    content_type: str = "application/json"
    accept: str = "application/json"

    @property
    def path(self) -> str:
        """URL path of the call."""
        path = self.resource.path(self.namespace, self.name)
        return f"{path}/{self.subresource}" if self.subresource else path

    @property
    def what(self) -> str:
        """The object, as errors name it."""
        kind = self.resource.plural + (f"/{self.subresource}" if self.subresource else "")
        named = f"{kind} {self.name}" if self.name else kind
        return f"{named} in namespace {self.namespace}" if self.namespace else named


class Cluster:
    """A logged-in connection to one API server; use it as an asynchronous context manager."""

    def __init__(self, configuration: Any, context: str, namespace: str) -> None:
        self._client = ApiClient(configuration)
        self._client.user_agent = "flashrun"
        self.server: str = configuration.host
        self.context = context
        """Name of the kubeconfig's context; empty inside a pod."""
        self.namespace = namespace
        """Namespace that the context or the pod is in."""

    @classmethod
    async def login(cls, kubeconfig: Path | None = None, context: str | None = None) -> Self:
        """Connect as ``kubectl`` would: the kubeconfig first, a pod's service account without one.

        Raises:
            NoCluster: neither is there, or the context does not exist.
        """
        if kubeconfig is None and context is None and not _kubeconfigs():
            return cls.in_cluster()
        path = os.fspath(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or None
        configuration = Configuration()
        try:
            loader = await config.load_kube_config(
                path, context=context, client_configuration=configuration, persist_config=False
            )
            active = loader.current_context
        except _KUBECONFIG_ERRORS as error:
            raise NoCluster(
                f"the kubeconfig cannot be used ({_line(error)}); see kubectl config get-contexts"
            ) from None
        return cls(configuration, active["name"], active["context"].get("namespace") or "default")

    @classmethod
    def in_cluster(cls) -> Self:
        """Connect with the service account that is mounted into this pod."""
        configuration = Configuration()
        try:
            config.load_incluster_config(configuration)
            namespace = _NAMESPACE_FILE.read_text().strip()
        except (config.ConfigException, OSError):
            raise NoCluster(
                "there is no kubeconfig and this is no pod: set KUBECONFIG, or make "
                f"{KUBE_CONFIG_DEFAULT_LOCATION} with the tool of your cluster"
            ) from None
        return cls(configuration, "", namespace)

    async def connection(self) -> Connection:
        """Return how this cluster is reached, with a token that is valid at present."""
        found = self._client.configuration
        bearer = (await found.auth_settings()).get("BearerToken")
        return Connection(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            certificate_path=found.cert_file,
            key_path=found.key_file,
            token=bearer["value"].partition(" ")[2] if bearer else None,
            insecure=not found.verify_ssl,
        )

    async def close(self) -> None:
        """End all connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- objects ------------------------------------------------------------------------------

    async def get(self, kind: str, namespace: str | None, name: str) -> Object:
        """Return one object; raises ``NotFound``."""
        return await self._call(Request("get", "GET", RESOURCES[kind], namespace, name))

    async def find(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Return one object, or None when there is none."""
        try:
            return await self.get(kind, namespace, name)
        except NotFound:
            return None

    async def metadata(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Return an object's metadata alone, or None; its content never leaves the server."""
        partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        request = Request("get", "GET", RESOURCES[kind], namespace, name, accept=partial)
        try:
            found: Object = (await self._call(request))["metadata"]
        except NotFound:
            return None
        return found

    async def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """Return the objects of one namespace, or of all, that carry ``labels``."""
        for _ in range(TRIES):
            try:
                return [item async for item in self._pages(kind, namespace, labels or {})]
            except _ListExpired:
                continue
        raise Unreachable(f"{RESOURCES[kind].plural} change faster than they can be listed")

    async def create(
        self, manifest: Object, manager: str = names.FIELD_MANAGER, *, dry_run: bool = False
    ) -> Object:
        """Create an object, or only ask whether it would be; raises ``AlreadyExists``."""
        request = _of(manifest, "create", "POST", manager, named=False)
        if dry_run:
            request = request._replace(query=(*request.query, ("dryRun", "All")))
        return await self._call(request)

    async def apply(self, manifest: Object, manager: str = names.FIELD_MANAGER) -> Object:
        """Make the fields that we own as in ``manifest`` (server-side apply)."""
        request = _of(manifest, "patch", "PATCH", manager)
        query = (*request.query, ("force", "true"))
        content_type = "application/apply-patch+yaml"
        return await self._call(request._replace(query=query, content_type=content_type))

    async def replace(self, manifest: Object) -> Object:
        """Write an object as a whole; raises ``Conflict`` when its version is not the newest."""
        return await self._call(_of(manifest, "update", "PUT", names.FIELD_MANAGER))

    async def patch(
        self,
        kind: str,
        namespace: str,
        name: str,
        body: Object,
        *,
        subresource: str = "",
        manager: str = names.FIELD_MANAGER,
    ) -> Object:
        """Merge ``body`` into an object; null takes a key away."""
        return await self._call(
            Request(
                "patch",
                "PATCH",
                RESOURCES[kind],
                namespace,
                name,
                subresource,
                (("fieldManager", manager),),
                body,
                "application/merge-patch+json",
            )
        )

    async def patch_status(self, kind: str, namespace: str, name: str, status: Object) -> Object:
        """Merge ``status`` into an object's status; safe to repeat, so lost answers are no harm."""
        return await self.patch(kind, namespace, name, {"status": status}, subresource="status")

    async def delete(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        *,
        uid: str = "",
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete an object and, in the background, what it owns; False when it is gone already.

        ``uid`` guards against deleting a successor of the same name.
        """
        options: Object = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        request = Request("delete", "DELETE", RESOURCES[kind], namespace, name, body=options)
        try:
            await self._call(request)
        except NotFound:
            return False
        except Conflict:
            if uid:
                return False
            raise
        return True

    async def give_up(self, namespace: str, pod: str, message: str) -> None:
        """Delete a pod whose node is lost, after saying in the kubelet's place that it failed.

        Deleting alone would not do: the Job holds on to a pod until it has ended, and nobody else
        is left to say so. As a disruption it does not count against the Job's retries.
        """
        found = await self.find("Pod", namespace, pod)
        if found is None:
            return
        before = [c for c in found["status"].get("conditions") or [] if c["type"] != _DISRUPTED]
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lost = {
            "type": _DISRUPTED,
            "status": "True",
            "reason": "NodeLost",
            "message": message,
            "lastTransitionTime": moment,
        }
        status = {"phase": "Failed", "reason": "NodeLost", "conditions": [*before, lost]}
        await self.patch_status("Pod", namespace, pod, status)
        await self.delete("Pod", namespace, pod, uid=found["metadata"]["uid"], grace_seconds=0)

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: datetime | None = None,
        timestamps: bool = False,
    ) -> AsyncIterator[str]:
        """Yield the lines of a container's log, and new ones as they come when ``follow``.

        ``since`` leaves older lines out, to the second; ``timestamps`` puts its time before a line.
        """
        query = [("container", container), ("follow", str(follow).lower())]
        if tail is not None:
            query.append(("tailLines", str(tail)))
        if since is not None:
            query.append(("sinceTime", since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")))
        if timestamps:
            query.append(("timestamps", "true"))
        request = Request("get", "GET", RESOURCES["Pod"], namespace, pod, "log", query=tuple(query))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async for line in self._lines(request, timeout):
            yield line.decode(errors="replace").rstrip("\n")

    async def version(self) -> str:
        """Return the API server's version, as in v1.34.4."""
        found = await self._call(Request("get", "GET", _Document("/version", "version"), None))
        return str(found["gitVersion"])

    async def served_versions(self, group: str) -> tuple[str, ...]:
        """Return the versions of an API group, the preferred one first; raises ``NotFound``."""
        place = _Document(f"/apis/{group}", f"API group {group}")
        found = await self._call(Request("get", "GET", place, None))
        return tuple(item["version"] for item in found["versions"])

    async def may(self, verb: str, kind: str, namespace: str, subresource: str = "") -> bool:
        """Say whether the user may do ``verb`` to objects of ``kind`` in ``namespace``."""
        group, _, _ = RESOURCES[kind].api_version.rpartition("/")
        attributes = {
            "verb": verb,
            "group": group,
            "resource": RESOURCES[kind].plural,
            "subresource": subresource,
            "namespace": namespace,
        }
        review = Resource("authorization.k8s.io/v1", "selfsubjectaccessreviews", False)
        body = {
            "apiVersion": review.api_version,
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await self._call(Request("create", "POST", review, None, body=body))
        return bool(answer["status"]["allowed"])

    # --- secrets ------------------------------------------------------------------------------

    async def secret_keys(
        self, namespace: str, name: str
    ) -> tuple[Mapping[str, str], frozenset[str]] | None:
        """Return a Secret's labels and the names of its keys; None when it does not exist."""
        found = await self.find("Secret", namespace, name)
        if found is None:
            return None
        keys = frozenset(key for key, value in (found.get("data") or {}).items() if value)
        return found["metadata"].get("labels") or {}, keys

    async def copy_keys(self, metadata: Object, sources: Mapping[str, str]) -> None:
        """Create the immutable Secret ``metadata`` from ``sources``: key → Secret that holds it.

        One that exists is left as it is.

        Raises:
            NotFound: a source or its key has gone since it was looked up.
        """
        namespace = metadata["namespace"]
        data: dict[str, str] = {}
        for source in sorted(set(sources.values())):
            held = (await self.get("Secret", namespace, source)).get("data") or {}
            wanted = [key for key, name in sources.items() if name == source]
            absent = [key for key in wanted if key not in held]
            if absent:
                raise NotFound(f"secret {source} in namespace {namespace} has no {absent[0]}")
            data |= {key: held[key] for key in wanted}
        secret = _secret(metadata) | {"immutable": True, "data": data}
        with contextlib.suppress(AlreadyExists):
            await self.create(secret)

    async def put_secret(self, metadata: Object, values: Mapping[str, str]) -> None:
        """Make the Secret ``metadata`` hold ``values``, replacing older ones."""
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        await self.apply(_secret(metadata) | {"data": data})

    async def create_secret(
        self, metadata: Object, values: Mapping[str, str], manager: str = names.FIELD_MANAGER
    ) -> None:
        """Create a Secret; created and not applied, so that no copy is kept in an annotation."""
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        await self.create(_secret(metadata) | {"data": data}, manager)

    async def secret_value(self, namespace: str, name: str, key: str) -> str:
        """Return one value of a Secret, for credentials that are meant for the caller itself."""
        found = await self.get("Secret", namespace, name)
        encoded = (found.get("data") or {}).get(key)
        if encoded is None:
            raise NotFound(f"secret {name} in namespace {namespace} has no key {key}")
        return base64.b64decode(encoded).decode()

    # --- calls --------------------------------------------------------------------------------

    async def _pages(
        self, kind: str, namespace: str | None, labels: Mapping[str, str]
    ) -> AsyncIterator[Object]:
        resource = RESOURCES[kind]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        query = (("limit", str(PAGE)), *((("labelSelector", selector),) if selector else ()))
        following = ""
        while True:
            page = (*query, *((("continue", following),) if following else ()))
            answer = await self._call(Request("list", "GET", resource, namespace, query=page))
            for item in answer["items"]:
                # Items of a list come without these two, and decisions want to see them.
                yield {"apiVersion": resource.api_version, "kind": kind, **item}
            following = answer["metadata"].get("continue", "")
            if not following:
                return

    async def _call(self, request: Request) -> Object:
        """Send a request, again when it may be; what fails for good raises one of our errors."""
        lost_answer = False
        for remaining in reversed(range(TRIES)):
            try:
                status, retry_after, text = await self._send(request)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if remaining == 0:
                    raise self._unreachable(error) from None
                lost_answer, pause = True, 0.0
            else:
                if status < 300:
                    return _parsed(text)
                if lost_answer and status == 409 and request.verb == "create":
                    return await self._made_before(request, text)
                if status not in _RETRIED_STATUS or remaining == 0:
                    raise _refusal(request, status, text)
                lost_answer, pause = lost_answer or status != 429, retry_after
            backoff = 0.2 * 2 ** (TRIES - 1 - remaining)
            await asyncio.sleep(max(pause, backoff) * random.uniform(0.8, 1.2))
        raise AssertionError  # the last try returns or raises

    async def _made_before(self, request: Request, text: bytes) -> Object:
        """Return the object that a create whose answer was lost has made."""
        name = (request.body or {}).get("metadata", {}).get("name")
        if not name or _status(text).get("reason") != "AlreadyExists":
            raise _refusal(request, 409, text)
        return await self._call(Request("get", "GET", request.resource, request.namespace, name))

    async def _send(self, request: Request) -> tuple[int, float, bytes]:
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS)
        response = await self._open(request, timeout)
        async with response:
            retry_after = response.headers.get("Retry-After", "")
            seconds = min(float(retry_after), 30.0) if retry_after.isdigit() else 0.0
            return response.status, seconds, await response.read()

    async def _open(self, request: Request, limits: aiohttp.ClientTimeout) -> Any:
        method, url, headers, body, _ = await self._client.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query),
            header_params={"Accept": request.accept, "Content-Type": request.content_type},
            body=request.body,
            auth_settings=["BearerToken"],
        )
        answer = await self._client.rest_client.request(
            method, url, headers=headers, body=body, _request_timeout=limits
        )
        return answer.response

    async def _lines(self, request: Request, limits: aiohttp.ClientTimeout) -> AsyncIterator[bytes]:
        try:
            async with await self._open(request, limits) as response:
                if response.status >= 300:
                    raise _refusal(request, response.status, await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
                if rest:
                    yield rest
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> Unreachable:
        place = f" of context {self.context}" if self.context else ""
        advice = "; kubectl config current-context shows which cluster is meant"
        return Unreachable(
            f"the API server {self.server}{place} cannot be reached ({_network_cause(error)})"
            + (advice if self.context else "")
        )


class _ListExpired(ClusterError):
    """A list was cut into pages and took too long; it has to begin again."""


def _kubeconfigs() -> list[Path]:
    listed = os.environ.get("KUBECONFIG") or KUBE_CONFIG_DEFAULT_LOCATION
    paths = (Path(path).expanduser() for path in listed.split(os.pathsep) if path)
    return [path for path in paths if path.exists()]


def _of(manifest: Object, verb: str, method: str, manager: str, *, named: bool = True) -> Request:
    metadata = manifest["metadata"]
    return Request(
        verb,
        method,
        RESOURCES[manifest["kind"]],
        metadata.get("namespace"),
        metadata["name"] if named else "",
        query=(("fieldManager", manager),),
        body=manifest,
    )


def _secret(metadata: Object) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}


# --- errors -------------------------------------------------------------------------------------


def _refusal(request: Request, status: int, text: bytes) -> ClusterError:
    """Return the error that an answer stands for."""
    said = _status(text)
    message, reason = str(said.get("message") or f"HTTP {status}"), said.get("reason")
    details = said.get("details") or {}
    match status:
        case 401:
            return Forbidden(
                "the API server does not accept these credentials; log in again with the tool "
                "of your cluster (kubectl auth whoami shows whether it worked)"
            )
        case 403 if reason == "Forbidden" and "exceeded quota" in message:
            return Forbidden(f"{request.what} cannot be created: {_line(message)}")
        case 403:
            return Forbidden(_forbidden(request, message))
        case 404 if request.verb in {"create", "list"} and details.get("kind") != "namespaces":
            return NotFound(
                f"the cluster does not know {request.resource.full_name}; "
                "its administrator installs the flashrun chart"
            )
        case 404 if details.get("kind") == "namespaces":
            return NotFound(f"namespace {request.namespace} does not exist")
        case 404:
            return NotFound(f"{request.what} does not exist")
        case 409 if reason == "AlreadyExists":
            return AlreadyExists(f"{details.get('name') or request.what} exists already")
        case 409:
            return Conflict(f"{request.what} was changed by someone else in between")
        case 410:
            return _ListExpired(message)
        case 400 | 405 | 406 | 413 | 415 | 422:
            return Invalid(f"{request.what} is refused: {_causes(details) or _line(message)}")
        case _:
            return Unreachable(
                f"the API server is not able to {request.verb} {request.what} now: {message}"
            )


def _forbidden(request: Request, message: str) -> str:
    place = f" in namespace {request.namespace}" if request.namespace else ""
    flag = f" -n {request.namespace}" if request.namespace else ""
    kind = request.resource.full_name + (f"/{request.subresource}" if request.subresource else "")
    if " cannot " not in message:  # not RBAC but admission: a policy or webhook has its own words
        return f"{request.what} is refused by the cluster's policy: {_line(message)}"
    return (
        f"you may not {request.verb} {kind}{place}; ask the cluster's administrator for this "
        f"right (kubectl auth can-i {request.verb} {kind}{flag} checks it)"
    )


def _causes(details: Mapping[str, Any]) -> str:
    """Return the fields that the API server complains about."""
    causes = details.get("causes") or []
    told = (
        f"{cause.get('field')}: {_line(cause.get('message', ''))}".removeprefix("<nil>: ")
        for cause in causes
    )
    return "; ".join(dict.fromkeys(told))


def _status(text: bytes) -> Object:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _parsed(text: bytes) -> Object:
    found = _status(text)
    if not found:
        raise Unreachable("the API server's answer is not JSON; is a proxy in between?")
    return found


def _network_cause(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"its certificate is not trusted: {_line(error)}"
        case aiohttp.ClientConnectorDNSError():
            return "its host name does not resolve"
        case aiohttp.ClientConnectorError():
            return "the connection is refused"
        case TimeoutError():
            return "no answer in time"
        case _:
            return f"the connection broke, {type(error).__name__}"


def _line(message: object) -> str:
    """Return a foreign message as one line."""
    return " ".join(str(message).split())
