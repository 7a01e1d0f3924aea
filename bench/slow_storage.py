"""A proxy in front of an S3 server that delays every upload."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

_CHUNK = 256 * 1024


@contextlib.contextmanager
def slowed(endpoint: str, seconds: float) -> Iterator[str]:
    """Yield an endpoint that answers each PUT ``seconds`` later than ``endpoint`` does."""
    loop = asyncio.new_event_loop()
    proxy = _Proxy(endpoint, seconds)
    server = loop.run_until_complete(asyncio.start_server(proxy.serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_close_connections(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close_connections(server: asyncio.Server) -> None:
    """Close the server, and wait until all connections are closed."""
    server.close()
    connections = asyncio.all_tasks() - {asyncio.current_task()}
    if connections:
        await asyncio.wait(connections, timeout=10)


class _Proxy:
    def __init__(self, endpoint: str, seconds: float) -> None:
        url = urlsplit(endpoint)
        self._host, self._port, self._seconds = url.hostname, url.port, seconds

    async def serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection(self._host, self._port)
        uploading = asyncio.Event()

        async def requests() -> None:
            while data := await near.read(_CHUNK):
                if data.startswith(b"PUT "):  # a client waits for an answer before its next request
                    uploading.set()
                out.write(data)
                await out.drain()
            out.close()
            await out.wait_closed()

        async def answers() -> None:
            while data := await far.read(_CHUNK):
                if uploading.is_set() and not data.startswith(b"HTTP/1.1 100"):
                    await asyncio.sleep(self._seconds)
                    uploading.clear()
                back.write(data)
                await back.drain()
            back.close()
            await back.wait_closed()

        with contextlib.suppress(ConnectionError):
            await asyncio.gather(requests(), answers())
