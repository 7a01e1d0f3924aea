"""Which endpoints need a port-forward; forwarding itself is tried with real pods."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flashrun import port_forward
from flashrun.api.records import StorageAccess
from flashrun.cluster_errors import Forbidden, Unreachable
from flashrun.port_forward import forwarded_endpoint, forwarded_service

REACHABLE = ["https://s3.example.com", "http://10.0.0.1:9000", "http://localhost:9000"]


@pytest.mark.parametrize("endpoint", REACHABLE)
async def test_an_endpoint_outside_the_cluster_stays_as_it_is(endpoint: str) -> None:
    access = StorageAccess(
        endpoint=endpoint, bucket="b", access_key="a", secret_key="s", addressing="virtual"
    )
    nobody: Any = None
    async with forwarded_endpoint(nobody, access) as reachable:
        assert reachable is access


async def test_connections_that_are_kept_open_end_with_the_port_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From Python 3.12 on a server that is closed would wait for them."""

    class Silent:
        def __aiter__(self) -> "Silent":
            return self

        async def __anext__(self) -> Any:
            await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def socket(_: object) -> AsyncIterator[Silent]:
        yield Silent()

    async def answer(*_: object) -> Any:
        return "pod", 9000

    async def no(*_: object) -> bool:
        return False

    async def yes(*_: object) -> bool:
        return True

    monkeypatch.setattr(port_forward, "_resolves", no)
    monkeypatch.setattr(port_forward, "_may_forward", yes)
    monkeypatch.setattr(port_forward, "_find_pod", answer)
    monkeypatch.setattr(port_forward._Forward, "_socket", socket)
    endpoint = "http://storage.namespace.svc:9000"
    access = StorageAccess(endpoint=endpoint, bucket="b", access_key="a", secret_key="s")
    nobody: Any = None
    async with asyncio.timeout(10):
        async with forwarded_endpoint(nobody, access) as reachable:
            port = int(reachable.endpoint.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.1)
        assert await reader.read() == b""
    writer.close()


class Refusing:
    """A cluster in which nobody may forward ports."""

    async def may(self, *_: object) -> bool:
        return False


async def test_a_service_without_the_right_to_reach_it_is_refused_before_anything_is_opened() -> (
    None
):
    cluster: Any = Refusing()
    with pytest.raises(Forbidden, match="you may not forward ports in namespace team-a"):
        async with forwarded_service(cluster, "sums", "team-a", 8000):
            pass


class Loading(Refusing):
    """A cluster whose Service has a pod that is not ready yet."""

    async def may(self, *_: object) -> bool:
        return True

    async def get(self, *_: object) -> Any:
        return {"spec": {"selector": {"a": "b"}, "ports": [{"port": 8000}]}}

    async def list(self, *_: object) -> Any:
        return [{"status": {"conditions": [{"type": "Ready", "status": "False"}]}}]


async def test_a_service_without_a_ready_pod_says_how_to_look_at_its_pods() -> None:
    cluster: Any = Loading()
    with pytest.raises(Unreachable, match="kubectl describe pods -n team-a and their logs"):
        async with forwarded_service(cluster, "sums", "team-a", 8000):
            pass
