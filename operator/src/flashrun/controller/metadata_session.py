"""An HTTP session with which kopf gets only some metadata of what it lists and watches.

The watches need names and labels. A whole object has up to 1.5 MB, most of which its writer
chooses, and becomes twenty times as large in memory. Its metadata may be as large. What kopf gets
is therefore written anew, from what the operator reads of it.
"""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import kopf
import msgspec
from multidict import CIMultiDict, CIMultiDictProxy
from typing_extensions import override

from flashrun.cluster_requests import (
    HEAD_BYTES,
    LEFT_OUT,
    Object,
    bounded_retry_after,
    list_head,
)
from flashrun.controller.bounded_answers import OBJECT_BYTES, PAGE, Identity

_METADATA: Final = "application/json;g=meta.k8s.io;v=v1;as=PartialObjectMetadata"
_UNREADABLE: Final = (RecursionError, msgspec.DecodeError)


class _Partial(msgspec.Struct, omit_defaults=True, rename="camel"):
    """An object with what the operator reads of its metadata, or the Status of an error."""

    metadata: Identity
    kind: str = ""
    api_version: str = ""
    code: int | None = None
    message: str | None = None


class _WatchEvent(msgspec.Struct):
    """An event of a watch."""

    type: str
    object: _Partial


class _PartialList(msgspec.Struct):
    """A page of a list."""

    items: list[_Partial] | None = None


class _WatchLines:
    """The content of a watch, in which each line has only what the operator reads.

    A line that is too long or too deep is left out. Its object is looked at in the next resync.
    """

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """Yield one line at a time."""
        async for line in self._lines():
            try:
                event = msgspec.json.decode(line, type=_WatchEvent)
            except _UNREADABLE:
                continue
            yield msgspec.json.encode(event) + b"\n"

    async def _lines(self) -> AsyncIterator[bytearray]:
        line, too_long = bytearray(), False
        async for piece in self._content.iter_any():
            *ended, rest = piece.split(b"\n")
            for part in ended:
                if not too_long and len(line) + len(part) <= OBJECT_BYTES:
                    yield line + part
                line, too_long = bytearray(), False
            too_long = too_long or len(line) + len(rest) > OBJECT_BYTES
            line = bytearray() if too_long else line + rest


class _Answer(aiohttp.ClientResponse):
    """An answer that kopf can take as it is.

    An empty list is a list: in one of metadata, the API server has null. What asks kopf to wait is
    bounded: it waits as long as it is asked to, and fails at a date.
    """

    @override
    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        self._asked_by = self._session  # which a closed answer forgets
        await super().start(connection)
        if self._is_partial and "watch" in self.url.query:
            self.content: Any = _WatchLines(self.content)
        return self

    @property
    def _is_partial(self) -> bool:
        """Whether the content are objects of which only metadata were asked for."""
        accepted = self.request_info.headers.get("Accept", "")
        return self.status == 200 and accepted.startswith(_METADATA)

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers, with a pause within bounds."""
        headers = CIMultiDict(super().headers)
        if "Retry-After" in headers:
            headers["Retry-After"] = str(bounded_retry_after(headers["Retry-After"]))
        return CIMultiDictProxy(headers)

    @override
    async def json(self, **options: Any) -> Any:
        if self._is_partial:
            return await self._page()
        answer = await super().json(**options)
        if isinstance(answer, dict) and isinstance(details := answer.get("details"), dict):
            pause = bounded_retry_after(str(details.get("retryAfterSeconds", "")))
            answer["details"] = {**details, "retryAfterSeconds": pause}
        return answer

    async def _page(self) -> Object:
        """Return a page of a list; one that is too large object by object, up to ``PAGE``.

        Objects that are too large are left out.
        """
        page = await _read_page(self)
        if page["items"] is not None:
            return page
        self.close()
        metadata = {"continue": self.url.query.get("continue", "")}
        items: list[Object] = []
        for _ in range(LEFT_OUT):
            single = {"limit": "1", "continue": metadata["continue"]}
            assert self._asked_by is not None
            async with self._asked_by.get(self.url.update_query(single)) as answer:
                if answer.status != 200:  # kopf begins the list again
                    raise aiohttp.ClientPayloadError(f"HTTP {answer.status} in a list")
                part = await _read_page(answer)
            metadata = part["metadata"]
            items += part["items"] or ()
            if len(items) == PAGE or not metadata.get("continue"):
                break
        return {"metadata": metadata, "items": items}


async def _read_page(answer: aiohttp.ClientResponse) -> Object:
    """Return a page of a list; its items are None if they are too large or nested too deeply."""
    text = bytearray()
    items: Any = None
    async for piece in answer.content.iter_any():
        if len(text) + len(piece) > OBJECT_BYTES:
            break
        text += piece
    else:
        try:
            listed = msgspec.json.decode(text, type=_PartialList).items
        except _UNREADABLE:
            pass
        else:
            items = msgspec.to_builtins(listed or [])
    head = list_head(bytes(text[:HEAD_BYTES]))
    kept = ("continue", "resourceVersion")
    return {"metadata": {key: head[key] for key in kept if key in head}, "items": items}


def metadata_session(
    connection: kopf.ConnectionInfo, plurals: frozenset[str]
) -> kopf.AiohttpSession:
    """Return a session with the address and the credentials of ``connection``.

    ``plurals`` are the resources of whose objects only metadata are wanted. It is called in the
    event loop that uses the session.
    """

    async def ask_for_metadata(
        _: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestStartParams
    ) -> None:
        if request.url.name in plurals:
            watch = "watch" in request.url.query
            request.headers["Accept"] = _METADATA if watch else f"{_METADATA}List"
            request.headers["Accept-Encoding"] = "identity"  # a compressed answer has no bound

    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(ask_for_metadata)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=connection.as_ssl_context()),
        headers=connection.as_http_headers(),
        proxy=connection.proxy_url,
        trust_env=connection.trust_env,
        trace_configs=[tracing],
        response_class=_Answer,
    )
    return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)
