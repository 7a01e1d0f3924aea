"""The only module that talks to the Kubernetes API.

It translates and never decides. Objects go in and out as plain dictionaries. Every call has a time
limit. Each kind of refusal becomes one error of ``cluster_errors``, with one sentence. Calls that
are safe to repeat are repeated; a create whose answer was lost is recognized as our own.

Secret values are copied here from Secret to Secret and go nowhere else: ``secret_keys`` returns
names only. ``port_forward`` is a module of its own, because the asyncio half of the client cannot
forward ports.
"""

import asyncio
import base64
import copy
import heapq
import os
import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from flashrun.api import names
from flashrun.api.times import format_time
from flashrun.cluster_errors import (
    Conflict,
    NoCluster,
    NotFound,
    TooLarge,
    Unreachable,
)
from flashrun.cluster_login import Connection, Login, PodLogin
from flashrun.cluster_requests import (
    HEAD_BYTES,
    RESOURCES,
    ConnectionBroken,
    ListExpired,
    Object,
    Request,
    Resource,
    ServerAnswer,
    ServerDocument,
    WholeAnswers,
    bounded_retry_after,
    list_head,
    manifest_request,
    refusal,
    status_object,
)
from flashrun.kubeconfig import DEFAULT_LOCATION, Kubeconfig, kubeconfig_paths

if TYPE_CHECKING:
    from flashrun.cluster_async import StreamingClient
    from flashrun.cluster_blocking import BlockingClient

CALL_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 5.0
TRIES: Final = 4
METADATA_PAGE: Final = 500
"""Objects in one answer to a list of metadata."""
LARGER_METADATA: Final = {"Job": 200, "Pod": 200}
"""The same for kinds whose objects have many managed fields: 5 KiB each, as measured."""
POSITIONS_LIMIT: Final = 500
"""Most Workloads of one queue whose places are read."""

_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Asks for the metadata of an object: the server does not send its content."""
_KUEUE_VISIBILITY: Final = "visibility.kueue.x-k8s.io"
_RETRIED_STATUS: Final = frozenset({429, 500, 502, 503, 504})


class Cluster:
    """A logged-in connection to one API server; use it as an asynchronous context manager."""

    def __init__(self, login: Login, *, quick: bool = False) -> None:
        self._login = login
        self._answers = WholeAnswers()
        self._check_write: Callable[[], None] = lambda: None
        self._served: dict[str, Resource] = {}
        self._streams: list[StreamingClient] = []
        """The client for streams once there is one; copies of this connection share it."""
        self._calls = _blocking_client() if quick else self._stream_client()
        self.server = login.connection.server
        self.context = login.context
        """Name of the kubeconfig's context; empty inside a pod."""
        self.namespace = login.namespace
        """Namespace of the context, or of the pod."""

    @classmethod
    async def login(
        cls, kubeconfig: Path | None = None, context: str | None = None, *, quick: bool = False
    ) -> Self:
        """Connect as ``kubectl`` would: the kubeconfig first, a pod's service account without one.

        ``quick`` is for a program that makes a few calls and ends: it loads less.

        Raises:
            NoCluster: there is neither of the two, or the context does not exist.
        """
        if kubeconfig is None and context is None and not kubeconfig_paths():
            return cls(_pod_login(), quick=quick)
        path = os.fspath(kubeconfig) if kubeconfig else None
        return cls(await Kubeconfig.load(path, context), quick=quick)

    async def connection(self) -> Connection:
        """Return the address and credentials of the API server; the token is valid now."""
        await self._login.refresh()
        return self._login.connection

    def with_answers(self, answers: WholeAnswers) -> Self:
        """Return this connection with another reader of what the API server answers."""
        connection = copy.copy(self)
        connection._answers = answers
        return connection

    def checking_writes(self, check: Callable[[], None]) -> Self:
        """Return this connection, which calls ``check`` before each try of each write.

        An error that ``check`` raises ends the call: nothing more is sent.
        """
        connection = copy.copy(self)
        connection._check_write = check
        return connection

    async def close(self) -> None:
        """Close all connections."""
        for client in {id(client): client for client in (self._calls, *self._streams)}.values():
            await client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- objects ------------------------------------------------------------------------------

    async def get(self, kind: str, namespace: str | None, name: str) -> Object:
        """Return one object; raises ``NotFound``."""
        return await self._call(Request("get", "GET", RESOURCES[kind], namespace, name))

    async def find(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Return one object, or None when it does not exist."""
        try:
            return await self.get(kind, namespace, name)
        except NotFound:
            return None

    async def metadata(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Return only the metadata of an object, or None; the server does not send its content."""
        request = Request("get", "GET", RESOURCES[kind], namespace, name, accept=_METADATA)
        try:
            metadata: Object = (await self._call(request))["metadata"]
        except NotFound:
            return None
        return metadata

    async def list(
        self,
        kind: str,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[Object]:
        """Return the objects with ``labels`` in one namespace, or in all namespaces."""
        for _ in range(TRIES):
            try:
                return [item async for item in self._pages(kind, namespace, labels or {})]
            except ListExpired:
                continue
        raise Unreachable(f"{RESOURCES[kind].plural} change faster than they can be listed")

    async def newest(
        self,
        kind: str,
        namespace: str,
        labels: Mapping[str, str],
        limit: int,
        rank: Callable[[Object], Any],
        fields: Mapping[str, str] | None = None,
    ) -> tuple[Object, ...]:
        """Return the ``limit`` objects of the highest ranks, and keep no others.

        They are among those with ``labels`` and ``fields``.

        Objects whose rank is None do not count.
        """
        for _ in range(TRIES):
            heap: list[tuple[Any, int, Object]] = []
            try:
                number = 0
                async for item in self._pages(kind, namespace, labels, fields=fields):
                    number += 1
                    if (own_rank := rank(item)) is None:
                        continue
                    heapq.heappush(heap, (own_rank, number, item))
                    if len(heap) > limit:
                        heapq.heappop(heap)
            except ListExpired:
                continue
            return tuple(item for _, _, item in sorted(heap, key=lambda entry: entry[1]))
        raise Unreachable(f"{RESOURCES[kind].plural} change faster than they can be listed")

    async def list_metadata(
        self, kind: str, namespace: str | None, labels: Collection[str] = ()
    ) -> AsyncIterator[Object]:
        """Yield only the metadata of the objects in a namespace, or in all, that have ``labels``.

        Each is the name of a label, or a condition as the API server reads it (``key=value``).

        Raises:
            ListExpired: it took too long; begin again.
        """
        partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        having = dict.fromkeys(labels, "")
        page = LARGER_METADATA.get(kind, METADATA_PAGE)
        async for item in self._pages(kind, namespace, having, partial, page=page):
            yield item["metadata"]

    async def each(
        self, kind: str, namespace: str | None = None, page: int = 0
    ) -> AsyncIterator[Object]:
        """Yield the objects of a namespace, or of the cluster; raises ``ListExpired``.

        ``page`` is how many are read at a time, where it matters.
        """
        async for item in self._pages(kind, namespace, {}, page=page):
            yield item

    async def create(
        self,
        manifest: Object,
        manager: str = names.FIELD_MANAGER,
        *,
        dry_run: bool = False,
        strict: bool = False,
    ) -> Object:
        """Create an object, or with ``dry_run`` only check it; raises ``AlreadyExists``.

        With ``strict``, fields that the API server does not know are refused, and not dropped.
        """
        request = manifest_request(manifest, "create", "POST", manager, named=False)
        if strict:
            request = request._replace(query=(*request.query, ("fieldValidation", "Strict")))
        if dry_run:
            request = request._replace(query=(*request.query, ("dryRun", "All")))
        return await self._call(request)

    async def apply(self, manifest: Object, manager: str = names.FIELD_MANAGER) -> Object:
        """Set the fields that ``manager`` owns to those in ``manifest`` (server-side apply).

        Returns the metadata of the object as it is now.
        """
        request = manifest_request(manifest, "patch", "PATCH", manager)
        query = (*request.query, ("force", "true"))
        content_type = "application/apply-patch+yaml"
        request = request._replace(query=query, content_type=content_type, accept=_METADATA)
        return _metadata_in(await self._call(request))

    async def replace(self, manifest: Object) -> Object:
        """Replace a whole object; raises ``Conflict`` when it changed since it was read."""
        return await self._call(manifest_request(manifest, "update", "PUT", names.FIELD_MANAGER))

    async def patch(
        self,
        kind: str,
        namespace: str,
        name: str,
        body: Object,
        *,
        subresource: str = "",
        manager: str = names.FIELD_MANAGER,
        strict: bool = False,
    ) -> Object:
        """Merge ``body`` into an object (JSON merge patch); a null value removes its key.

        With ``strict``, fields that the API server does not know are refused, and not dropped.
        With a ``resourceVersion`` in its metadata, raises ``Conflict`` when the object has changed
        since. Returns the metadata of the object as it is now.
        """
        answer = await self._call(
            Request(
                "patch",
                "PATCH",
                await self._resource(kind),
                namespace,
                name,
                subresource,
                (("fieldManager", manager), *((("fieldValidation", "Strict"),) if strict else ())),
                body,
                "application/merge-patch+json",
                _METADATA,
            )
        )
        return _metadata_in(answer)

    async def patch_status(self, kind: str, namespace: str, name: str, status: Object) -> None:
        """Merge ``status`` into the status of an object (JSON merge patch)."""
        await self.patch(kind, namespace, name, {"status": status}, subresource="status")

    async def delete(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        *,
        uid: str = "",
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete an object and, in the background, the objects it owns; False when it is gone.

        With ``uid``, a later object of the same name is not deleted.
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
        """Yield the lines of a container's log; with ``follow``, also new lines as they come.

        ``tail`` is a number of last lines. ``since`` leaves out older lines, to the second.
        ``timestamps`` begins each line with its time.
        """
        query = [("container", container), ("follow", str(follow).lower())]
        if tail is not None:
            query.append(("tailLines", str(tail)))
        if since is not None:
            query.append(("sinceTime", format_time(since)))
        if timestamps:
            query.append(("timestamps", "true"))
        request = Request("get", "GET", RESOURCES["Pod"], namespace, pod, "log", query=tuple(query))
        async for line in self._lines(request):
            yield line.decode(errors="replace").rstrip("\n")

    async def version(self) -> str:
        """Return the API server's version, as in v1.34.4.

        Raises:
            Unreachable: what answers is another program, such as a web site.
        """
        document = ServerDocument("/version", "version")
        try:
            return str((await self._call(Request("get", "GET", document, None)))["gitVersion"])
        except (NotFound, KeyError):
            why = ConnectionBroken("what answers is not an API server of Kubernetes")
            raise self._unreachable(why) from None

    async def served_versions(self, group: str) -> tuple[str, ...]:
        """Return the versions of an API group, the preferred one first; raises ``NotFound``."""
        document = ServerDocument(f"/apis/{group}", f"API group {group}")
        answer = await self._call(Request("get", "GET", document, None))
        return tuple(item["version"] for item in answer["versions"])

    async def queue_positions(self, namespace: str, queue: str) -> dict[str, int]:
        """Return the names of the Workloads that wait in a LocalQueue of Kueue, with their places.

        Places count from 1. Kueue serves them by an API server of its own, which may be off.
        """
        served = await self.served_versions(_KUEUE_VISIBILITY)
        version = f"{_KUEUE_VISIBILITY}/{served[0]}"
        resource = Resource(version, "localqueues")
        query = (("limit", str(POSITIONS_LIMIT)),)
        answer = await self._call(
            Request("get", "GET", resource, namespace, queue, "pendingworkloads", query)
        )
        return {
            item["metadata"]["name"]: int(item.get("positionInLocalQueue", 0)) + 1
            for item in answer.get("items") or ()
        }

    async def may(self, verb: str, kind: str, namespace: str, subresource: str = "") -> bool:
        """Return whether the user may do ``verb`` to objects of ``kind`` in ``namespace``."""
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

    async def user_name(self) -> str:
        """Return what the API server calls the user of these credentials."""
        review = Resource("authentication.k8s.io/v1", "selfsubjectreviews", False)
        body = {"apiVersion": review.api_version, "kind": "SelfSubjectReview"}
        answer = await self._call(Request("create", "POST", review, None, body=body))
        return str(answer["status"]["userInfo"].get("username", ""))

    # --- secrets ------------------------------------------------------------------------------

    async def secret_keys(
        self, namespace: str, name: str
    ) -> tuple[Mapping[str, str], frozenset[str]] | None:
        """Return a Secret's labels and the names of its keys; None when it does not exist."""
        secret = await self.find("Secret", namespace, name)
        if secret is None:
            return None
        keys = frozenset(key for key, value in (secret.get("data") or {}).items() if value)
        return secret["metadata"].get("labels") or {}, keys

    async def copy_keys(self, metadata: Object, sources: Mapping[str, str]) -> Object:
        """Create an immutable Secret with ``metadata`` from ``sources``: key → Secret that has it.

        Returns the metadata of the new Secret.

        Raises:
            AlreadyExists: a Secret of this name exists; it stays as it is.
            NotFound: a source, or its key, was deleted since the lookup.
        """
        namespace = metadata["namespace"]
        data: dict[str, str] = {}
        for source in sorted(set(sources.values())):
            source_data = (await self.get("Secret", namespace, source)).get("data") or {}
            keys = [key for key, name in sources.items() if name == source]
            missing = [key for key in keys if key not in source_data]
            if missing:
                raise NotFound(f"secret {source} in namespace {namespace} has no {missing[0]}")
            data |= {key: source_data[key] for key in keys}
        secret = _secret(metadata) | {"immutable": True, "data": data}
        return await self._create_secret(secret, names.FIELD_MANAGER)

    async def put_secret(self, metadata: Object, values: Mapping[str, str]) -> Object:
        """Create the Secret with ``metadata``, or replace its values by ``values``.

        Returns the metadata of the Secret as it is now.
        """
        return await self.apply(_secret(metadata) | {"data": _encoded(values)})

    async def sync_secret(self, metadata: Object, values: Mapping[str, str]) -> None:
        """Put the Secret with ``metadata`` unless it has exactly these values."""
        existing = await self.find("Secret", metadata["namespace"], metadata["name"])
        if existing is None or _encoded(values) != (existing.get("data") or {}):
            await self.put_secret(metadata, values)

    async def create_secret(
        self, metadata: Object, values: Mapping[str, str], manager: str = names.FIELD_MANAGER
    ) -> Object:
        """Create a Secret, and return its metadata; raises ``AlreadyExists``.

        Unlike ``kubectl apply``, this leaves no copy of the values in an annotation.
        """
        secret = _secret(metadata) | {"data": _encoded(values)}
        return await self._create_secret(secret, manager)

    async def _create_secret(self, secret: Object, manager: str) -> Object:
        request = manifest_request(secret, "create", "POST", manager, named=False)
        return _metadata_in(await self._call(request._replace(accept=_METADATA)))

    async def secret_value(self, namespace: str, name: str, key: str) -> str:
        """Return one value of a Secret, for credentials that the caller itself uses."""
        secret = await self.get("Secret", namespace, name)
        encoded = (secret.get("data") or {}).get(key)
        if encoded is None:
            raise NotFound(f"secret {name} in namespace {namespace} has no key {key}")
        return base64.b64decode(encoded).decode()

    # --- calls --------------------------------------------------------------------------------

    async def _pages(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str],
        accept: str = "application/json",
        fields: Mapping[str, str] | None = None,
        page: int = 0,
    ) -> AsyncIterator[Object]:
        """Yield listed objects; ``labels`` without a value have to be there with any value."""
        resource = await self._resource(kind)
        selectors = (("labelSelector", labels), ("fieldSelector", fields or {}))
        query = tuple(
            (name, ",".join(f"{key}={value}" if value else key for key, value in wanted.items()))
            for name, wanted in selectors
            if wanted
        )
        most = page or self._answers.page
        following, limit, left_out = "", most, 0
        while True:
            place = (("limit", str(limit)), *((("continue", following),) if following else ()))
            request = Request(
                "list", "GET", resource, namespace, query=(*query, *place), accept=accept
            )
            try:
                answer = await self._call(request)
            except NotFound:
                self._served.pop(kind, None)  # its versions may have changed
                raise
            except TooLarge as error:
                if limit > 1:
                    limit = max(1, limit // 5)
                    continue
                left_out += 1
                if left_out > self._answers.left_out:
                    raise
                following = list_head(error.head).get("continue", "")
                if not following:
                    return
                continue
            for item in answer["items"] or ():  # null in an empty list of metadata
                # The API server leaves these two out of a list's items; decisions need them.
                yield {"apiVersion": resource.api_version, "kind": kind, **item}
            following = answer["metadata"].get("continue", "")
            if not following:
                return
            limit = min(most, 5 * limit)

    async def _resource(self, kind: str) -> Resource:
        """Return where objects of ``kind`` are, in the newest version that the cluster serves."""
        resource = self._served.get(kind) or RESOURCES[kind]
        if not resource.older or kind in self._served:
            return resource
        group = resource.api_version.partition("/")[0]
        served = {f"{group}/{version}" for version in await self.served_versions(group)}
        versions = (resource.api_version, *resource.older)
        newest = next((version for version in versions if version in served), versions[0])
        self._served[kind] = resource._replace(api_version=newest)
        return self._served[kind]

    async def _call(self, request: Request) -> Object:
        """Send a request, and repeat it while that may help; raises one of our errors."""
        lost_answer = False
        for remaining in reversed(range(TRIES)):
            if request.method != "GET":
                self._check_write()
            try:
                status, retry_after, text = await self._send(request)
            except ConnectionBroken as error:
                if remaining == 0:
                    raise self._unreachable(error) from None
                lost_answer, pause = True, 0.0
            else:
                if status < 300:
                    return self._answers.read(request, text)
                if lost_answer and status == 409 and request.verb == "create":
                    return await self._created_before(request, text)
                if status not in _RETRIED_STATUS or remaining == 0:
                    raise refusal(request, status, text)
                lost_answer, pause = lost_answer or status != 429, retry_after
            backoff = 0.2 * 2 ** (TRIES - 1 - remaining)
            await asyncio.sleep(max(pause, backoff) * random.uniform(0.8, 1.2))
        raise AssertionError  # the last try returns or raises

    async def _created_before(self, request: Request, text: bytes | bytearray) -> Object:
        """Return the object of an earlier create of ours whose answer was lost."""
        name = (request.body or {}).get("metadata", {}).get("name")
        if not name or status_object(text).get("reason") != "AlreadyExists":
            raise refusal(request, 409, text)
        return await self._call(Request("get", "GET", request.resource, request.namespace, name))

    async def _send(self, request: Request) -> tuple[int, float, bytes | bytearray]:
        answer = await self._open(self._calls, request, CALL_SECONDS)
        try:
            pause = bounded_retry_after(answer.retry_after)
            return answer.status, pause, await self._content(request, answer)
        finally:
            answer.release()

    async def _content(self, request: Request, answer: ServerAnswer) -> bytes | bytearray:
        """Return the content of an answer; raises ``TooLarge``."""
        limit = self._answers.max_bytes
        text = bytearray()
        async for piece in answer.pieces():
            if limit is not None and len(text) + len(piece) > limit:
                raise TooLarge(
                    f"the answer about {request.target} is longer than {limit:,} bytes",
                    bytes((text + piece)[:HEAD_BYTES]),
                )
            text += piece
        return text

    async def _open(
        self, client: "StreamingClient | BlockingClient", request: Request, seconds: float | None
    ) -> ServerAnswer:
        """Send a request, with new credentials if the API server refuses those at hand."""
        connection = await self.connection()
        answer = await client.send(connection, request, seconds)
        if answer.status == 401 and await self._login.renew(connection):
            answer.release()
            answer = await client.send(await self.connection(), request, seconds)
        return answer

    def _stream_client(self) -> "StreamingClient":
        """Return the client for streams, which is loaded when it is needed first."""
        if not self._streams:
            from flashrun.cluster_async import StreamingClient

            self._streams.append(StreamingClient(CONNECT_SECONDS))
        return self._streams[0]

    async def _lines(self, request: Request) -> AsyncIterator[bytes]:
        try:
            answer = await self._open(self._stream_client(), request, None)
            try:
                if answer.status >= 300:
                    raise refusal(request, answer.status, await self._content(request, answer))
                rest = b""
                async for chunk in answer.pieces():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
                if rest:
                    yield rest
            finally:
                answer.release()
        except ConnectionBroken as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: ConnectionBroken) -> Unreachable:
        place = f" of context {self.context}" if self.context else ""
        advice = "; kubectl config current-context shows which cluster is meant"
        return Unreachable(
            f"the API server {self.server}{place} cannot be reached ({error})"
            + (advice if self.context else "")
        )


def _blocking_client() -> "BlockingClient":
    from flashrun.cluster_blocking import BlockingClient

    return BlockingClient(CONNECT_SECONDS)


def _pod_login() -> PodLogin:
    try:
        return PodLogin.load()
    except (KeyError, OSError):
        raise NoCluster(
            f"no kubeconfig was found{_named_kubeconfig()}, and this program does not run in a "
            f"pod: set KUBECONFIG, or create {DEFAULT_LOCATION} with the tool of your cluster"
        ) from None
    except ValueError as error:
        raise NoCluster(f"the API server of this pod's cluster: {error}") from None


def _named_kubeconfig() -> str:
    """Say which file KUBECONFIG names; nothing exists there."""
    named = os.environ.get("KUBECONFIG")
    return f" (KUBECONFIG is {named})" if named else ""


def _metadata_in(answer: Object) -> Object:
    metadata: Object = answer.get("metadata") or {}
    return metadata


def _secret(metadata: Object) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}


def _encoded(values: Mapping[str, str]) -> dict[str, str]:
    """Return values as the data of a Secret."""
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
