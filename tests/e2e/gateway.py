"""A gateway before the API server, as companies have: its bearer tokens are valid for seconds.

It ends TLS, looks at the token of each request, and passes the request on with the certificate of
the administrator. Answers are passed on as they come, so that logs and watches work.
"""

import asyncio
import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from localcluster.pki import Authority
from tests.short_tokens import ShortTokens

_UNAUTHORIZED = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"Connection: close\r\n\r\n{}"
)
_DROPPED = (b"authorization:", b"connection: keep-alive", b"connection: close")


class Gateway:
    """Listens on loopback, on a thread of its own."""

    def __init__(self, tokens: ShortTokens, administrator: Path, folder: Path) -> None:
        self._tokens = tokens
        self._authority = Authority(folder)
        self._authority.create()
        leaf = self._authority.leaf("gateway", "/CN=gateway", ["IP:127.0.0.1"])
        self._serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._serving.load_cert_chain(leaf.certificate, leaf.key)
        config = yaml.safe_load(administrator.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._url = urlsplit(cluster["server"])
        self._trust = ssl.create_default_context(
            cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
        )
        pair = [folder / "administrator.crt", folder / "administrator.key"]
        for path, key in zip(pair, ("client-certificate-data", "client-key-data"), strict=True):
            path.write_bytes(base64.b64decode(user[key]))
        self._trust.load_cert_chain(*pair)
        self.port = 0
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()

    @property
    def certificate(self) -> str:
        """The authority that signed its certificate, as a kubeconfig has it."""
        return base64.b64encode(self._authority.certificate.read_bytes()).decode()

    def run(self) -> None:
        """Serve until ``stop``."""
        asyncio.set_event_loop(self._loop)
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._serving)
        server = self._loop.run_until_complete(starting)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    def wait_until_ready(self) -> None:
        """Wait until it listens."""
        assert self._ready.wait(30)

    def stop(self) -> None:
        """End ``run``."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            lines = (await reader.readuntil(b"\r\n\r\n")).rstrip().split(b"\r\n")
            words = [line.split(b" ")[-1] for line in lines if line.lower().startswith(_DROPPED[0])]
            if not self._tokens.check(words[0].decode() if words else ""):
                writer.write(_UNAUTHORIZED)
                await writer.drain()
            else:
                kept = [line for line in lines if not line.lower().startswith(_DROPPED)]
                if not any(line.lower().startswith(b"upgrade:") for line in kept):
                    kept.append(b"Connection: close")
                await self._pass_on(reader, writer, b"\r\n".join(kept) + b"\r\n\r\n")
        writer.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        there = await asyncio.open_connection(self._url.hostname, self._url.port, ssl=self._trust)
        there[1].write(head)
        sending = asyncio.create_task(_copy(reader, there[1]))
        try:
            await _copy(there[0], writer)
        finally:
            sending.cancel()
            there[1].close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@contextmanager
def serve_gateway(tokens: ShortTokens, administrator: Path, folder: Path) -> Iterator[Gateway]:
    """Serve until the end of the context."""
    gateway = Gateway(tokens, administrator, folder)
    thread = threading.Thread(target=gateway.run, daemon=True)
    thread.start()
    gateway.wait_until_ready()
    try:
        yield gateway
    finally:
        gateway.stop()
        thread.join()
