"""The client of short commands: TLS, proxies and hanging servers.

``conftest`` runs the tests of the cluster module with it, too.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flashrun.cluster_blocking import BlockingClient
from flashrun.cluster_login import Connection
from flashrun.cluster_requests import RESOURCES, ConnectionBroken, Request
from localcluster.pki import Authority
from tests.store.forward_proxy import forward_proxy

POD = Request("get", "GET", RESOURCES["Pod"], "team", "x")


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        if self.path.endswith("/slow"):
            time.sleep(3)
        groups = self.headers.get_all("Impersonate-Group") or []
        body = json.dumps([self.headers["Authorization"], *groups]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve on loopback; yield host and port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.create()
    return made


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[str]:
    """A server whose certificate is for api.test."""
    leaf = authority.leaf("api", "/CN=api", ["DNS:api.test"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.certificate, leaf.key)
    with serve(context) as place:
        yield place


async def ask(connection: Connection, request: Request = POD, seconds: float = 10.0) -> list[str]:
    client = BlockingClient(5.0)
    answer = await client.send(connection, request, seconds)
    pieces = [piece async for piece in answer.pieces()]
    await client.close()
    headers: list[str] = json.loads(b"".join(pieces))
    return headers


async def test_credentials_and_each_impersonated_group_are_sent() -> None:
    with serve() as place:
        connection = Connection(
            f"http://{place}",
            authorization="Bearer t",
            impersonation=(("Impersonate-Group", "a"), ("Impersonate-Group", "b")),
        )
        assert await ask(connection) == ["Bearer t", "a", "b"]


async def test_a_server_is_known_by_its_authority_and_its_name(
    secure: str, authority: Authority
) -> None:
    connection = Connection(
        f"https://{secure}", str(authority.certificate), authorization="t", server_name="api.test"
    )
    assert await ask(connection) == ["t"]
    insecure = connection._replace(ca_path=None, server_name=None, insecure=True)
    assert await ask(insecure) == ["t"]


UNTRUSTED = [{"ca_path": None}, {"server_name": "other.test"}, {"server_name": None}]


@pytest.mark.parametrize("change", UNTRUSTED, ids=["its authority", "its name", "its address"])
async def test_a_server_that_is_not_known_is_not_asked(
    secure: str, authority: Authority, change: dict[str, str | None]
) -> None:
    connection = Connection(
        f"https://{secure}", str(authority.certificate), server_name="api.test"
    )._replace(**change)  # type: ignore[arg-type]
    with pytest.raises(ConnectionBroken, match="its certificate is not trusted"):
        await ask(connection)


async def test_a_proxy_gets_its_password_and_connects_to_the_server(
    secure: str, authority: Authority
) -> None:
    with forward_proxy(secure) as proxy:
        connection = Connection(
            "https://api.test",
            str(authority.certificate),
            authorization="t",
            proxy=f"http://user:hush@127.0.0.1:{proxy.port}",
        )
        assert await ask(connection) == ["t"]
    assert proxy.hosts == {"api.test"}
    assert proxy.users == {"Basic dXNlcjpodXNo"}


async def test_a_proxy_that_is_away_breaks_the_connection() -> None:
    connection = Connection("https://api.test", proxy="http://127.0.0.1:1", insecure=True)
    with pytest.raises(ConnectionBroken, match="the connection is refused"):
        await ask(connection)


async def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ConnectionBroken, match="its certificates cannot be read"):
        await ask(Connection("https://127.0.0.1:1", str(tmp_path / "ca")))


async def test_a_server_that_hangs_is_left_in_time() -> None:
    with serve() as place:
        began = time.monotonic()
        with pytest.raises(ConnectionBroken, match="no answer in time"):
            await ask(Connection(f"http://{place}"), POD._replace(name="slow"), 0.2)
        assert time.monotonic() - began < 2


async def test_requests_run_beside_each_other() -> None:
    with serve() as place:
        client = BlockingClient(5.0)
        connection = Connection(f"http://{place}", authorization="t")
        answers = await asyncio.gather(*(client.send(connection, POD, 10.0) for _ in range(8)))
        assert {answer.status for answer in answers} == {200}
        await client.close()
