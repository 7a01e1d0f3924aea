"""What the operator publishes: how many GPUs a pool has, and how many are free."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun.api.platform import Pool
from flashrun.api.records import StorageAccess
from flashrun.controller import publish
from tests.controller.stage import platform

GPU = frozenset({"nvidia.com/gpu"})


def node(
    name: str, gpus: int | str, ready: bool = True, cordoned: bool = False, **labels: str
) -> dict:
    status = "True" if ready else "False"
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": status}],
        },
    }


def pod(on: str, gpus: int | str, phase: str = "Running") -> dict:
    limits = {"limits": {"nvidia.com/gpu": str(gpus)}}
    spec = {"nodeName": on, "containers": [{"resources": limits}, {}]}
    return {"spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("nodes", "pods", "total", "free"),
    [
        ([], [], 0, 0),
        ([node("a", 8)], [], 8, 8),
        ([node("a", 8)], [pod("a", 3), pod("a", 1)], 8, 4),
        ([node("a", 8)], [pod("a", 3, "Succeeded"), pod("a", 1, "Failed")], 8, 8),
        ([node("a", 8), node("b", 8, ready=False)], [], 8, 8),
        ([node("a", 8), node("b", 8, cordoned=True)], [pod("b", 2)], 8, 8),
        ([node("a", 2)], [pod("a", 4)], 2, 0),
        ([node("a", 0)], [], 0, 0),
        ([node("a", "1k")], [pod("a", "2e1"), pod("a", "1k", "Failed")], 1000, 980),
        ([node("a", "1e3")], [pod("a", "0.5k"), pod("a", "1Ki", "Succeeded")], 1000, 500),
        ([node("a", "2Ki"), node("b", "1E", ready=False)], [pod("a", "1Ki")], 2048, 1024),
        ([node("a", 8)], [pod("a", "1500m"), pod("a", "many"), pod("a", "-1")], 8, 7),
        ([{**node("a", 8), "status": {"conditions": []}}], [], 0, 0),
    ],
)
def test_free_gpus_are_those_nobody_asked_for(
    nodes: list[dict], pods: list[dict], total: int, free: int
):
    pool = Pool(name="p", vram=80)
    assert publish.count_gpus(pool, nodes, pods) == (total, free)
    kept = [publish.shortened(pod, GPU) for pod in pods if publish.holds_any(pod, GPU)]
    assert publish.count_gpus(pool, nodes, kept) == (total, free)


def test_of_a_pod_little_stays_in_memory():
    whole = pod("a", 3)
    whole["metadata"] = {"annotations": {"a": "x" * 200_000}}
    whole["spec"]["containers"][0]["env"] = [{"name": "A", "value": "x" * 200_000}]
    assert len(str(publish.shortened(whole, GPU))) < 300


class ManyPods:
    """Stands in for a cluster: one of its pods in a hundred has a GPU."""

    namespace = "flashrun-system"

    def __init__(self, count: int) -> None:
        self._count = count

    async def list(self, kind: str) -> list[dict]:
        return [node("a", 8), node("b", 1000)]

    async def each(self, kind: str) -> AsyncIterator[dict]:
        for number in range(self._count):
            made = pod("b", 1) if number % 100 == 0 else pod("a", 0)
            made["metadata"] = {"annotations": {"a": "x" * 2000 + str(number)}}
            if number % 100:
                made["spec"]["containers"][0]["resources"]["limits"] = {"cpu": f"{number}m"}
            yield made


@pytest.mark.parametrize("count", [5_000, 20_000])
async def test_the_pods_of_a_large_cluster_are_counted_in_little_memory(count: int) -> None:
    storage = StorageAccess(endpoint="http://s3", bucket="bucket", access_key="a", secret_key="s")
    settings = platform("team", storage)
    cluster: Any = ManyPods(count)
    await publish.describe_platform(cluster, settings, datetime.now(UTC))
    tracemalloc.start()
    public = await publish.describe_platform(cluster, settings, datetime.now(UTC))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert public.pools[0].free == 1008 - count // 100
    assert peak < 512 * 1024


def test_pools_of_one_resource_count_their_own_nodes_each():
    """Both are nvidia.com/gpu to Kubernetes; only the labels of the nodes tell them apart."""
    pools = [Pool(name=gpu, vram=80, node_selector={"gpu": gpu}) for gpu in ("h100", "a10")]
    nodes = [
        node("a", 8, gpu="h100"),
        node("b", 4, gpu="a10"),
        node("c", 2, gpu="a10"),
        node("d", 1),
    ]
    pods = [pod("b", 3), pod("a", 1), pod("d", 1)]
    assert [publish.count_gpus(pool, nodes, pods) for pool in pools] == [(8, 7), (6, 3)]


def test_a_pool_of_another_resource_does_not_count_its_neighbours():
    pool = Pool(name="slices", vram=10, resource="nvidia.com/mig-1g.10gb")
    assert publish.count_gpus(pool, [node("a", 8)], [pod("a", 3)]) == (0, 0)


async def test_what_was_deleted_when_a_namespace_left_is_published_again_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish, "EVERY_SECONDS", 0.01)
    served = iter([("team-a", "team-b"), ("team-a",)])
    asked = 0

    def namespaces() -> tuple[str, ...]:
        nonlocal asked
        asked += 1
        return next(served, ("team-a", "team-b"))

    monkeypatch.setattr(publish, "time", SimpleNamespace(monotonic=lambda: 0.0))  # never time
    async with asyncio.timeout(5):
        await publish._wait_for_more(namespaces, frozenset(("team-a", "team-b")))
    assert asked == 3
