"""Requests to the Kubernetes API, and the error for each answer that refuses one.

Pure functions: nothing here opens a connection.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote, urlencode

from typing_extensions import override

from flashrun.api import names
from flashrun.cluster_errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    Unreachable,
)

Object = dict[str, Any]

_STRICT: Final = "strict decoding error"
_UNKNOWN_FIELD: Final = re.compile(r'unknown field "([^"]{1,256})"')


class Resource(NamedTuple):
    """Where the API keeps objects of one kind."""

    api_version: str
    plural: str
    namespaced: bool = True
    older: tuple[str, ...] = ()
    """Earlier versions of the same group, for servers that do not serve ``api_version``."""

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


class ServerDocument(Resource):
    """A document about the API server itself, at the path that ``api_version`` holds."""

    @override
    def path(self, namespace: str | None, name: str = "") -> str:
        return self.api_version


_OLDER_KUEUE: Final = ("kueue.x-k8s.io/v1beta1",)

RESOURCES: Final[Mapping[str, Resource]] = {
    names.KIND: Resource(names.API_VERSION, names.PLURAL),
    "Job": Resource("batch/v1", "jobs"),
    "Pod": Resource("v1", "pods"),
    "Secret": Resource("v1", "secrets"),
    "ConfigMap": Resource("v1", "configmaps"),
    "Event": Resource("v1", "events"),
    "ResourceQuota": Resource("v1", "resourcequotas"),
    "LocalQueue": Resource("kueue.x-k8s.io/v1beta2", "localqueues", older=_OLDER_KUEUE),
    "Workload": Resource("kueue.x-k8s.io/v1beta2", "workloads", older=_OLDER_KUEUE),
    "Service": Resource("v1", "services"),
    "Deployment": Resource("apps/v1", "deployments"),
    "Lease": Resource("coordination.k8s.io/v1", "leases"),
    "RoleBinding": Resource("rbac.authorization.k8s.io/v1", "rolebindings"),
    "NetworkPolicy": Resource("networking.k8s.io/v1", "networkpolicies"),
    "Namespace": Resource("v1", "namespaces", namespaced=False),
    "Node": Resource("v1", "nodes", namespaced=False),
    "CustomResourceDefinition": Resource(
        "apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False
    ),
}


LONGEST_RETRY_AFTER: Final = 30.0
"""Most seconds that a server may make us wait before we ask again."""


HEAD_BYTES: Final = 64 * 1024
"""How much is kept of an answer that is too large."""


class ListExpired(ClusterError):
    """A list was read page by page for too long and has to begin again."""


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
    def url(self) -> str:
        """Path and query of the call."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote)}" if self.query else self.path

    @property
    def text(self) -> str | None:
        """What the call sends; None for nothing."""
        return None if self.body is None else json.dumps(self.body)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the call, without credentials."""
        return [
            ("Accept", self.accept),
            ("Accept-Encoding", "identity"),  # a compressed answer has no bound
            ("Content-Type", self.content_type),
            ("User-Agent", "flashrun"),
        ]

    @property
    def metadata_only(self) -> bool:
        """Whether only metadata are asked for."""
        return "PartialObjectMetadata" in self.accept

    @property
    def target(self) -> str:
        """The object or the collection, as errors name it."""
        kind = self.resource.plural + (f"/{self.subresource}" if self.subresource else "")
        named = f"{kind} {self.name}" if self.name else kind
        return f"{named} in namespace {self.namespace}" if self.namespace else named


class ConnectionBroken(Exception):
    """The API server did not answer; ``str`` is the cause, as a part of a sentence."""


class ServerAnswer(Protocol):
    """What the API server answers, while it arrives."""

    status: int
    retry_after: str
    """The header of this name; empty without one."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the content as it arrives; raises ``ConnectionBroken``."""

    def release(self) -> None:
        """Give the connection back."""


LEFT_OUT: Final = 500
"""Most objects of one list that are left out because they cannot be read."""


class WholeAnswers:
    """Reads what the API server answers as it is, whatever its size.

    A program that other people's objects must not grow gives ``Cluster`` a reader with bounds.
    """

    max_bytes: int | None = None
    """Longest answer that is read; None: any."""
    page: int = 100
    """Objects in one answer to a list."""
    left_out: int = LEFT_OUT
    """Nobody can write an object that keeps others from their list."""

    def read(self, request: Request, text: bytes | bytearray) -> Object:
        """Return the object or the list in an answer; raises ``TooLarge`` or ``Unreachable``."""
        try:
            answer = status_object(text)
        except RecursionError:
            raise TooLarge(
                f"{request.target} cannot be read: it is nested too deeply",
                metadata_first(bytes(text)),
            ) from None
        if not answer:
            raise Unreachable("the API server's answer is not JSON; is a proxy in between?")
        return answer


def metadata_first(text: bytes) -> bytes:
    """Return the head of a list whose metadata are behind its items, as with custom resources."""
    metadata = text.rpartition(b'"metadata":')[2].rstrip().removesuffix(b"}")
    return b'{"metadata":' + metadata + b',"items":'


def list_head(head: bytes) -> Object:
    """Return the metadata of a list from the beginning of its text; empty if they are not there.

    The API server writes the metadata of a list before its items.
    """
    before, items, _ = head.partition(b'"items":')
    metadata = status_object(before + items + b"null}").get("metadata") if items else None
    return metadata if isinstance(metadata, dict) else {}


def manifest_request(
    manifest: Object, verb: str, method: str, manager: str, *, named: bool = True
) -> Request:
    """Return the request that sends ``manifest``; ``named`` puts its name into the path."""
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


def refusal(request: Request, status: int, text: bytes | bytearray) -> ClusterError:
    """Return the error that an HTTP answer with this status and body stands for."""
    answer = status_object(text)
    message, reason = str(answer.get("message") or f"HTTP {status}"), answer.get("reason")
    details = answer.get("details") or {}
    if _is_denial(message):  # a webhook chooses the status of its denials itself
        return Forbidden(_refused_by_policy(request, message))
    match status:
        case 401:
            return Forbidden(
                "the API server does not accept these credentials; log in again with the tool "
                "of your cluster (kubectl auth whoami shows whether it worked)"
            )
        case 403 if reason == "Forbidden" and "exceeded quota" in message:
            return Forbidden(f"{request.target} cannot be created: {one_line(message)}")
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
            return NotFound(f"{request.target} does not exist")
        case 409 if reason == "AlreadyExists":
            return AlreadyExists(f"{details.get('name') or request.target} exists already")
        case 409:
            return Conflict(f"{request.target} was changed by someone else in between")
        case 410:
            return ListExpired(message)
        # A refused patch has the whole object before this.
        case 400 | 422 if unknown := _UNKNOWN_FIELD.findall(message.rpartition(_STRICT)[2]):
            return Invalid(
                f"{request.target} is refused: the cluster does not know {', '.join(unknown)}; its "
                "administrator updates the flashrun chart, or you leave this out"
            )
        case 400 | 405 | 406 | 413 | 415 | 422:
            return Invalid(f"{request.target} is refused: {_causes(details) or one_line(message)}")
        case _:
            return Unreachable(
                f"the API server is not able to {request.verb} {request.target} now: {message}"
            )


def status_object(text: bytes | bytearray) -> Object:
    """Return the JSON object that an answer holds; empty when it holds none."""
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def bounded_retry_after(text: str) -> float:
    """Return the seconds that a ``Retry-After`` header asks for, within bounds; a date is 0."""
    digits = text.strip()
    return min(float(digits), LONGEST_RETRY_AFTER) if digits.isascii() and digits.isdigit() else 0.0


def one_line(message: object) -> str:
    """Return a message of another program as one line."""
    return " ".join(str(message).split())


def _is_denial(message: str) -> bool:
    """Return whether an admission webhook or an admission policy denied the request."""
    return "denied the request" in message or "denied request" in message


def _refused_by_policy(request: Request, message: str) -> str:
    return f"the cluster's policy refuses {request.target}: {one_line(message)}"


def _forbidden(request: Request, message: str) -> str:
    place = f" in namespace {request.namespace}" if request.namespace else ""
    flag = f" -n {request.namespace}" if request.namespace else ""
    kind = request.resource.full_name + (f"/{request.subresource}" if request.subresource else "")
    if " cannot " not in message:  # RBAC says "cannot"; admission policies and webhooks do not
        return _refused_by_policy(request, message)
    return (
        f"you may not {request.verb} {kind}{place}; ask the cluster's administrator for this "
        f"right (kubectl auth can-i {request.verb} {kind}{flag} checks it)"
    )


def _causes(details: Mapping[str, Any]) -> str:
    """Return what the API server objects to, field by field."""
    causes = details.get("causes") or []
    sentences = (
        f"{cause.get('field')}: {one_line(cause.get('message', ''))}".removeprefix("<nil>: ")
        for cause in causes
    )
    return "; ".join(dict.fromkeys(sentences))
