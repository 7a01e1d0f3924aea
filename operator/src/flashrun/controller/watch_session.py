"""An HTTP session for kopf, which passes on what kopf lists and watches before kopf has it.

kopf makes a task for each object, and compares each object with a copy of it. We want to know what
changed, and do the rest ourselves. What this session reads goes to a ``Receiver``, within bounds:
an object has up to 1.5 MB, most of which its writer chooses. kopf gets positions alone: lists
without objects, and bookmarks in place of events. It opens, ends and continues the streams.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, Protocol

import aiohttp
import kopf
import msgspec
from msgspec import Raw
from multidict import CIMultiDict, CIMultiDictProxy
from typing_extensions import override

from flashrun.cluster_login import Connection
from flashrun.cluster_requests import (
    HEAD_BYTES,
    LEFT_OUT,
    Object,
    bounded_retry_after,
    list_head,
    metadata_first,
)
from flashrun.controller.bounded_answers import OBJECT_BYTES, PAGE, Identity
from flashrun.controller.watched_objects import UNREADABLE

log = logging.getLogger(__name__)

_BOOKMARK: Final = "BOOKMARK"
_ERROR: Final = "ERROR"


class Receiver(Protocol):
    """Gets what is listed and watched; its methods are called in kopf's event loop."""

    def page(self, kind: str, namespace: str, page: "Page") -> None:
        """Take one page of a list."""

    def opened(self, kind: str, namespace: str) -> None:
        """Take note that a watch has begun, or goes on after a pause."""

    def event(self, kind: str, namespace: str, change: str, raw: Raw, version: str) -> None:
        """Take one event: ``change`` is its type, ``version`` where in the stream it is."""

    def missed(self, kind: str, namespace: str) -> None:
        """Take note that an event or a listed object could not be read."""


class Page(NamedTuple):
    """A page of a list."""

    objects: Sequence[Raw]
    first: bool
    last_version: str | None
    """Version of the list, in its last page."""


class _Versioned(msgspec.Struct):
    """An object, or a bookmark, with the version that it shows."""

    metadata: Identity


class _WatchEvent(msgspec.Struct):
    """An event of a watch."""

    type: str
    object: Raw


class _List(msgspec.Struct):
    """A page of a list, as the API server sends it."""

    items: list[Raw] | None = None


class _Place(NamedTuple):
    kind: str
    namespace: str


class _WatchLines:
    """The content of a watch, in which each event is a bookmark.

    A line that is too long or too deep is left out.
    """

    def __init__(self, content: aiohttp.StreamReader, receiver: Receiver, place: _Place) -> None:
        self._content, self._receiver, self._place = content, receiver, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """Yield one line at a time; nothing of it is kept until the next one comes."""
        async for line in self._lines():
            try:
                mark = self._pass_on(line)
            except Exception as error:  # whatever one object is, the others are watched
                if not isinstance(error, UNREADABLE):
                    log.exception("an unexpected error while an event was read")
                self._receiver.missed(*self._place)
                mark = b""
            del line
            if mark:
                yield mark

    def _pass_on(self, line: bytearray) -> bytes:
        """Give an event to the receiver; return what kopf gets of it."""
        event = _read_event(line)
        if event.type == _ERROR:
            return bytes(line) + b"\n"
        version = msgspec.json.decode(event.object, type=_Versioned).metadata.resource_version or ""
        self._receiver.event(*self._place, event.type, event.object, version)
        mark = {"type": _BOOKMARK, "object": {"metadata": {"resourceVersion": version}}}
        return msgspec.json.encode(mark) + b"\n"

    async def _lines(self) -> AsyncIterator[bytearray]:
        line, too_long = bytearray(), False
        async for piece in self._content.iter_any():
            start = 0
            while (end := piece.find(b"\n", start)) >= 0:
                if not too_long and len(line) + end - start <= OBJECT_BYTES:
                    line += memoryview(piece)[start:end]
                    ended, line = [line], bytearray()
                    yield ended.pop()  # this generator keeps nothing of it
                else:
                    self._receiver.missed(*self._place)
                line, too_long, start = bytearray(), False, end + 1
            too_long = too_long or len(line) + len(piece) - start > OBJECT_BYTES
            if too_long:
                line = bytearray()
            else:
                line += memoryview(piece)[start:]
            del piece


def _read_event(line: bytearray) -> _WatchEvent:
    """Return an event; one that is nested too deeply without its spec, which follows metadata."""
    try:
        return msgspec.json.decode(line, type=_WatchEvent)
    except RecursionError:
        head, _, _ = line.partition(b',"spec":')
        return msgspec.json.decode(head + b"}}", type=_WatchEvent)


class _Answer(aiohttp.ClientResponse):
    """An answer that kopf can take as it is.

    What asks kopf to wait is bounded: it waits as long as it is asked to, and fails at a date.
    """

    receiver: Receiver
    kinds: Mapping[str, str]
    """Plural of a resource that is watched → its kind."""

    @override
    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        self._asked_by = self._session  # which a closed answer forgets
        await super().start(connection)
        if (place := self._place) is not None and "watch" in self.url.query:
            self.content: Any = _WatchLines(self.content, self.receiver, place)
            self.receiver.opened(*place)
        return self

    @property
    def _place(self) -> _Place | None:
        """Which objects are listed or watched; None: the answer is something else."""
        kind, parts = self.kinds.get(self.url.name), self.url.parts
        if self.status != 200 or kind is None or "namespaces" not in parts:
            return None
        return _Place(kind, parts[-2])

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers, with a pause within bounds."""
        headers = CIMultiDict(super().headers)
        if "Retry-After" in headers:
            headers["Retry-After"] = str(bounded_retry_after(headers["Retry-After"]))
        return CIMultiDictProxy(headers)

    @override
    async def json(self, **options: Any) -> Any:
        if (place := self._place) is not None:
            return await self._page(place)
        answer = await super().json(**options)
        if isinstance(answer, dict) and isinstance(details := answer.get("details"), dict):
            pause = bounded_retry_after(str(details.get("retryAfterSeconds", "")))
            answer["details"] = {**details, "retryAfterSeconds": pause}
        return answer

    async def _page(self, place: _Place) -> Object:
        """Give a page of a list to the receiver; return it without its objects.

        One that is too large is read object by object, up to ``PAGE``. Objects that are too large
        are left out.
        """
        first = "continue" not in self.url.query
        answer = await _read_page(self)
        if answer.objects is not None:
            self.receiver.page(*place, Page(answer.objects, first, answer.end))
            return {"metadata": answer.metadata, "items": []}
        self.close()
        self.receiver.page(*place, Page((), first, None))
        metadata: Object = {"continue": self.url.query.get("continue", "")}
        for number in range(1, LEFT_OUT + 1):
            single = {"limit": "1", "continue": metadata["continue"]}
            assert self._asked_by is not None
            async with self._asked_by.get(self.url.update_query(single)) as given:
                if given.status != 200:  # kopf begins the list again
                    raise aiohttp.ClientPayloadError(f"HTTP {given.status} in a list")
                answer = await _read_page(given)
            metadata = answer.metadata
            self.receiver.page(*place, Page(answer.objects or (), False, answer.end))
            if answer.objects is None:
                self.receiver.missed(*place)
            if number >= PAGE or not metadata.get("continue"):
                break
        return {"metadata": metadata, "items": []}


class _ReadPage(NamedTuple):
    metadata: Object
    objects: Sequence[Raw] | None
    """None: they are too large, or nested too deeply."""

    @property
    def end(self) -> str | None:
        """Version of the list, in its last page."""
        return None if self.metadata.get("continue") else self.metadata.get("resourceVersion", "")


async def _read_page(answer: aiohttp.ClientResponse) -> _ReadPage:
    """Return the metadata and the objects of a page.

    The metadata are before the objects, or behind them in a list of custom resources.
    """
    text = bytearray()
    tail, too_long = b"", False
    async for piece in answer.content.iter_any():
        too_long = too_long or len(text) + len(piece) > OBJECT_BYTES
        if too_long:
            tail = (tail + piece)[-HEAD_BYTES:]
        else:
            text += piece
    objects: Sequence[Raw] | None = None
    if not too_long:
        tail = bytes(text[-HEAD_BYTES:])
        with contextlib.suppress(*UNREADABLE):
            objects = msgspec.json.decode(text, type=_List).items or ()
    head = list_head(bytes(text[:HEAD_BYTES])) or list_head(metadata_first(tail))
    metadata: Object = {key: head[key] for key in ("continue", "resourceVersion") if key in head}
    return _ReadPage(metadata, objects)


def watch_session(
    connection: Connection, kinds: Mapping[str, str], given: Receiver
) -> kopf.AiohttpSession:
    """Return a session with the address and the credentials of ``connection``.

    ``kinds`` are the plurals of the resources whose objects ``given`` gets. It is called in the
    event loop that uses the session.
    """

    async def ask_for_text(
        _: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestStartParams
    ) -> None:
        if request.url.name in kinds:
            request.headers["Accept-Encoding"] = "identity"  # a compressed answer has no bound

    class WatchAnswer(_Answer):
        receiver = given

    class WatchRequest(aiohttp.ClientRequest):
        def __init__(self, *words: Any, **options: Any) -> None:
            options["server_hostname"] = connection.server_name
            super().__init__(*words, **options)

    WatchAnswer.kinds = kinds
    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(ask_for_text)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=connection.tls_context()),
        headers=CIMultiDict(connection.headers),
        proxy=connection.proxy,
        trace_configs=[tracing],
        request_class=WatchRequest,
        response_class=WatchAnswer,
    )
    return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)
