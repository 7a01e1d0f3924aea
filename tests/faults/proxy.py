"""A proxy that lets requests fail, between the operator and one server.

It stands before the API server, where it speaks TLS on both sides, or before S3. What passes is
recorded, and the faults that it has at the moment change it. It runs in a thread of its own, so
that a test may wait for what it does.
"""

import asyncio
import io
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.faults.exchange import Exchange, Seen

_HOP_BY_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding")
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_LONGEST_BODY = 64 * 1024 * 1024


class Fault:
    """Something that goes wrong; each kind overrides what it changes."""

    over = False
    """Whether it has been taken away; requests may still wait in it."""

    def hits(self, exchange: Exchange) -> bool:
        """Return whether this request has the fault."""
        return True

    async def before(self, exchange: Exchange, request: web.Request) -> web.StreamResponse | None:
        """Answer in place of the server, or wait; None: the server is asked."""
        return None

    def after(self, exchange: Exchange, answer: "Answer") -> "Answer | None":
        """Return the answer that is passed on; None: the connection breaks."""
        return answer

    gathers: ClassVar[float] = 0.0
    """Seconds for which lines of a watch are gathered, and then passed on together."""

    async def lines(self, exchange: Exchange, lines: list[bytes]) -> list[bytes]:
        """Return what is passed on of a watch in place of these lines; raises to end it."""
        return lines


@dataclass
class Answer:
    """What a server has answered."""

    status: int
    headers: CIMultiDict[str]
    body: bytes
    cut: int | None = None
    """After how many bytes the connection breaks."""


class WatchEnds(Exception):
    """Ends the stream of a watch."""


@dataclass
class FaultProxy:
    """Passes requests on to ``upstream``."""

    upstream: str
    serves: ssl.SSLContext | None = None
    """How it proves who it is; None: plain HTTP."""
    calls: ssl.SSLContext | None = None
    """What it shows the server."""
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self.serves else ''}://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["FaultProxy"]:
        """Run in a thread."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="fault-proxy", daemon=True)
        thread.start()
        ended = asyncio.run_coroutine_threadsafe(self._start(), loop).result(30)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(ended(), loop).result(60)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    @contextmanager
    def with_faults(self, *faults: Fault) -> Iterator[None]:
        """Let these faults happen."""
        self.faults = [*self.faults, *faults]
        try:
            yield
        finally:
            self.faults = [fault for fault in self.faults if fault not in faults]
            for fault in faults:
                fault.over = True

    async def _start(self):
        connector = aiohttp.TCPConnector(limit=0, ssl=self.calls or True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, trust_env=False
        )
        app = web.Application(client_max_size=_LONGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self.serves)
        await site.start()
        self.port = runner.addresses[0][1]

        async def end() -> None:
            await self._session.close()
            await runner.cleanup()

        return end

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        exchange = Exchange(request.method, request.raw_path, body, time.monotonic())
        faults = [fault for fault in self.faults if fault.hits(exchange)]
        seen = Seen(exchange)
        self.seen.append(seen)
        for fault in faults:
            given = await fault.before(exchange, request)
            if given is not None:
                seen.status = given.status
                return given
        if exchange.is_watch:
            return await self._watch(request, exchange, seen)
        # What was sent is done, also when the client does not wait any more.
        try:
            answer = await asyncio.shield(asyncio.ensure_future(self._ask(request, body)))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return broken(request)
        seen.status, seen.answered = answer.status, time.monotonic()
        for fault in faults:
            changed = fault.after(exchange, answer)
            if changed is None:
                return broken(request)
            answer = changed
        return await _respond(request, answer)

    async def _ask(self, request: web.Request, body: bytes) -> Answer:
        async with self._open(request, body) as answer:
            return Answer(answer.status, _passed_on(answer.headers), await answer.read())

    def _open(self, request: web.Request, body: bytes):
        empty = b"" if request.method in ("PUT", "POST", "PATCH") else None
        return self._session.request(
            request.method,
            URL(self.upstream + request.raw_path, encoded=True),
            headers=_passed_on(request.headers),
            data=io.BytesIO(body) if body else empty,
            allow_redirects=False,
            skip_auto_headers=_AUTOMATIC,
        )

    async def _watch(
        self, request: web.Request, exchange: Exchange, seen: Seen
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        try:
            async with self._open(request, b"") as answer:
                headers = _passed_on(answer.headers)
                response = web.StreamResponse(status=answer.status, headers=headers)
                await response.prepare(request)
                seen.status, seen.answered = answer.status, time.monotonic()
                async with asyncio.TaskGroup() as tasks:
                    lines = asyncio.Queue[bytes]()
                    reader = tasks.create_task(_read_lines(answer.content, lines))
                    while line := await lines.get():
                        for item in await self._passed(exchange, line, lines):
                            await response.write(item)
                    reader.cancel()
                await response.write_eof()
        except* (aiohttp.ClientError, TimeoutError, OSError, WatchEnds):
            response = broken(request)
        return response

    async def _passed(
        self, exchange: Exchange, line: bytes, more: asyncio.Queue[bytes]
    ) -> list[bytes]:
        lines = [line]
        for fault in [fault for fault in self.faults if fault.hits(exchange)]:
            if fault.gathers:
                await asyncio.sleep(fault.gathers)
                while not more.empty() and more._queue[0]:
                    lines.append(more.get_nowait())
            lines = await fault.lines(exchange, lines)
        return lines


async def _read_lines(content: aiohttp.StreamReader, lines: asyncio.Queue[bytes]) -> None:
    """Put lines into a queue, and an empty one at the end."""
    rest = b""
    try:
        async for piece in content.iter_any():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                lines.put_nowait(line + b"\n")
    finally:
        lines.put_nowait(b"")


async def _respond(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if request.method != "HEAD" and answer.status != 204:
        response.headers["Content-Length"] = str(len(answer.body))
    try:
        await response.prepare(request)
        if answer.cut is not None:
            await response.write(answer.body[: answer.cut])
            return broken(request)
        if request.method != "HEAD" and answer.body:
            await response.write(answer.body)
        await response.write_eof()
    except ConnectionError:
        return broken(request)
    return response


def broken(request: web.Request) -> web.Response:
    """Break the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the headers that belong to the content and not to the connection."""
    result = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        result.popall(name, None)
    return result
