"""The client of the operator and of streams, and when a short command gets it.

``conftest`` runs the tests of the cluster module with it, too.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from flashrun.cluster import Cluster
from flashrun.cluster_async import REUSED_BYTES, StreamingClient
from flashrun.cluster_blocking import BlockingClient
from flashrun.cluster_errors import NotFound
from flashrun.cluster_login import Connection
from flashrun.cluster_requests import RESOURCES, ConnectionBroken, Request
from tests.kubeconfigs import write_config

POD = Request("get", "GET", RESOURCES["Pod"], "team", "x")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[str]:
    """A server with the log of one pod."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            await request.read()
            assert request.transport is not None
            port = request.transport.get_extra_info("peername")[1]
            return web.json_response({"metadata": {"name": str(port)}})
        if not request.path.endswith("/log"):
            return web.json_response({"metadata": {"name": "x"}})
        if "/gone/" in request.path:
            return web.json_response({"kind": "Status"}, status=404)
        answer = web.StreamResponse()
        await answer.prepare(request)
        for piece in (b"fir", b"st\nsecond\nla", b"st"):
            await answer.write(piece)
        return answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_short_command_streams_a_log_beside_its_calls(server: str, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c", server, {"token": "t"})
    async with await Cluster.login(config, quick=True) as cluster:
        assert isinstance(cluster._calls, BlockingClient)
        assert await cluster.get("Pod", "team", "x") == {"metadata": {"name": "x"}}
        assert cluster._streams == []
        for _ in range(2):
            lines = [line async for line in cluster.logs("team", "x", "trainer")]
            assert lines == ["first", "second", "last"]
        assert len(cluster._streams) == 1
        with pytest.raises(NotFound):
            async for _ in cluster.logs("team", "gone", "trainer"):
                pass


async def test_another_certificate_gets_another_client_and_another_token_does_not(
    server: str,
) -> None:
    client = StreamingClient(5.0)
    connection = Connection(server)
    for header in ("Bearer a", "Bearer b"):
        (await client.send(connection._replace(authorization=header), POD, 10.0)).release()
    assert len(client._clients) == 1
    (await client.send(connection._replace(server_name="other"), POD, 10.0)).release()
    assert len(client._clients) == 2
    await client.close()


async def test_the_connection_of_a_large_body_serves_no_other_request(
    server: str, tmp_path: Path
) -> None:
    async with await Cluster.login(write_config(tmp_path / "c", server, {"token": "t"})) as cluster:

        async def ports(size: int) -> set[str]:
            made = {"kind": "Secret", "metadata": {"name": "x", "namespace": "team"}}
            manifest = {**made, "stringData": {"KEY": "x" * size}}
            return {(await cluster.create(manifest))["metadata"]["name"] for _ in range(3)}

        assert len(await ports(REUSED_BYTES // 2)) == 1
        assert len(await ports(REUSED_BYTES)) == 3


async def test_a_server_that_is_away_breaks_the_connection() -> None:
    client = StreamingClient(5.0)
    with pytest.raises(ConnectionBroken, match="the connection is refused"):
        await client.send(Connection("http://127.0.0.1:1"), POD, 10.0)
    await client.close()
