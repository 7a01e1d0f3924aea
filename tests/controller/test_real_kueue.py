"""A run in a queue of Kueue's own manager, which is built for it: ``make test-kueue``.

It shows that the manager that other tests play (``tests.controller.kueue``) does as they do. API
server and Job controller are real, and the kubelet and the trainer are played.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from flashrun.api.resource import FlashRun
from tests.controller.kueue import (
    QUEUE,
    RUN,
    is_suspended,
    message_of,
    save_and_end,
    start_training,
)
from tests.controller.kueue_manager import kueue_manager
from tests.controller.stage import Object, World

pytestmark = [pytest.mark.api, pytest.mark.slow]
OTHER = "flash-2-0a1b2c3d"
URGENT = "urgent"
SECONDS = 60
VERSION = "kueue.x-k8s.io/v1beta2"


@pytest.fixture(scope="module")
def manager(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kueue's manager."""
    with kueue_manager(installed, tmp_path_factory.mktemp("kueue")):
        yield


@pytest.fixture
def world(manager: None, make_world: Callable[..., World]) -> World:
    return make_world(queue=QUEUE)


@pytest_asyncio.fixture
async def queue(world: World) -> AsyncIterator[None]:
    """A LocalQueue with quota for one run, and its ClusterQueue."""
    name = world.namespace
    amounts = {"cpu": "100", "memory": "1Ti", "ephemeral-storage": "1Ti", "nvidia.com/gpu": "1"}
    resources = [{"name": key, "nominalQuota": amount} for key, amount in amounts.items()]
    group = {"coveredResources": list(amounts), "flavors": [{"name": name, "resources": resources}]}
    items: list[Object] = [
        {"apiVersion": VERSION, "kind": "ResourceFlavor", "metadata": {"name": name}},
        {
            "apiVersion": VERSION,
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "resourceGroups": [group],
                "preemption": {"withinClusterQueue": "LowerPriority"},
            },
        },
        {
            "apiVersion": VERSION,
            "kind": "LocalQueue",
            "metadata": {"name": QUEUE},
            "spec": {"clusterQueue": name},
        },
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": f"{URGENT}-{name}"},
            "value": 1000,
        },
    ]
    made = {"apiVersion": "v1", "kind": "List", "items": items}
    await world.kubectl("create", "-f", "-", stdin=made)
    yield
    await world.kubectl("delete", "flashruns,jobs", "--all")


async def stop_queue(world: World, policy: str) -> None:
    change = json.dumps({"spec": {"stopPolicy": policy}})
    await world.kubectl("patch", "clusterqueue", world.namespace, "--type=merge", "-p", change)


async def workload_of(world: World, name: str = RUN) -> Object:
    uid = (await world.job(name))["metadata"]["uid"]
    labels = {"kueue.x-k8s.io/job-uid": uid}
    [found] = await world.cluster.list("Workload", world.namespace, labels)
    return found


def condition(manifest: Object, kind: str) -> str:
    conditions = (manifest.get("status") or {}).get("conditions") or []
    return next((item["status"] for item in conditions if item["type"] == kind), "")


def show(run: FlashRun) -> None:
    """Print what a user reads, which ``-s`` shows."""
    print(f"{run.name}: {run.status.phase}: {message_of(run)}")


async def test_a_run_waits_with_its_place_in_the_managers_words_and_starts_with_quota(
    world: World, queue: None
):
    trainer = await start_training(world)
    await world.submit(OTHER)
    run = await world.until(OTHER, lambda run: "is number 1" in message_of(run), SECONDS)
    show(run)
    assert (run.status.phase, run.status.pending.reason) == ("Pending", "Queued")
    assert message_of(run).startswith(f"The Job is number 1 in LocalQueue {QUEUE}: ")
    assert "insufficient unused quota for nvidia.com/gpu" in message_of(run)
    assert is_suspended(await world.job(OTHER))

    await trainer.succeed()
    await world.phase(RUN, "Succeeded")
    await (await world.trainer(OTHER)).succeed()
    await world.phase(OTHER, "Succeeded")


async def test_a_run_in_a_queue_that_is_stopped_waits_in_the_managers_words(
    world: World, queue: None
):
    await stop_queue(world, "Hold")
    await world.submit(RUN)
    run = await world.until(RUN, lambda run: "inactive" in message_of(run), SECONDS)
    show(run)
    assert message_of(run).startswith("The Job ")
    assert f" in LocalQueue {QUEUE}: " in message_of(run)
    await stop_queue(world, "None")
    await (await world.trainer(RUN)).succeed()
    await world.phase(RUN, "Succeeded")


async def test_the_manager_leaves_a_run_alone_that_its_user_pauses(world: World, queue: None):
    trainer = await start_training(world)
    await world.control(RUN, suspend=True)
    await world.until(RUN, lambda run: run.status.condition("Ready").reason == "Suspending")
    await save_and_end(world, trainer)
    show(await world.phase(RUN, "Suspended"))
    end = time.monotonic() + SECONDS
    while condition(await workload_of(world), "QuotaReserved") != "False":
        assert time.monotonic() < end
        await asyncio.sleep(0.1)
    for _ in range(10):
        await world.pass_over(RUN)
        await asyncio.sleep(0.2)
        assert is_suspended(await world.job(RUN))
    assert not (await world.job(RUN))["status"].get("startTime")

    await world.control(RUN, suspend=False)
    await world.pass_over(RUN)
    again = await world.trainer(RUN, attempt=2)
    await again.succeed()
    run = await world.phase(RUN, "Succeeded")
    assert run.status.resolved.job == 0


async def test_a_run_that_gives_up_its_quota_lets_the_next_one_start(world: World, queue: None):
    trainer = await start_training(world)
    await world.submit(OTHER)
    await world.until(OTHER, lambda run: "is number 1" in message_of(run), SECONDS)
    await world.control(RUN, suspend=True)
    await world.until(RUN, lambda run: run.status.condition("Ready").reason == "Suspending")
    await save_and_end(world, trainer)
    await world.phase(RUN, "Suspended")
    other = await world.trainer(OTHER)

    await world.control(RUN, suspend=False)
    run = await world.until(RUN, lambda run: "is number 1" in message_of(run), SECONDS)
    show(run)
    assert run.status.phase == "Pending"
    await other.succeed()
    await world.phase(OTHER, "Succeeded")
    await (await world.trainer(RUN, attempt=2)).succeed()
    await world.phase(RUN, "Succeeded")


async def test_an_urgent_run_preempts_another_one_which_saves_and_goes_on(
    world: World, queue: None, make_world: Callable[..., World]
):
    urgent = make_world(queue=QUEUE, priority_class=f"{URGENT}-{world.namespace}")
    trainer = await start_training(world)
    assert (await world.job(RUN))["status"]["startTime"]
    await urgent.submit(OTHER)
    await urgent.phase(OTHER, "Pending")
    run = await world.until(RUN, lambda run: "saves and stops" in message_of(run), SECONDS)
    show(run)
    assert "Preempted: " in message_of(run)
    assert "Preempted to accommodate a workload" in message_of(run)
    await save_and_end(world, trainer)
    run = await world.until(RUN, lambda run: run.status.phase == "Pending", SECONDS)
    show(run)
    assert message_of(run).startswith("Kueue stopped the run (Preempted). The Job ")
    other = await urgent.trainer(OTHER)
    run = await world.until(RUN, lambda run: "is number 1" in message_of(run), SECONDS)
    show(run)
    assert "insufficient unused quota for nvidia.com/gpu" in message_of(run)
    assert not (await world.job(RUN))["status"].get("startTime")

    await other.succeed()
    await urgent.phase(OTHER, "Succeeded")
    again = await world.trainer(RUN, attempt=2)
    await again.succeed()
    run = await world.phase(RUN, "Succeeded")
    assert (run.status.resolved.job, run.status.resolved.failures_before) == (0, 0)
    assert run.status.attempts[0].reason == "Interrupted"


async def test_a_run_that_the_manager_evicts_saves_and_is_queued_again(world: World, queue: None):
    trainer = await start_training(world)
    await stop_queue(world, "HoldAndDrain")
    run = await world.until(RUN, lambda run: "saves and stops" in message_of(run), SECONDS)
    show(run)
    assert "ClusterQueueStopped" in message_of(run)
    await save_and_end(world, trainer)
    run = await world.until(RUN, lambda run: run.status.phase == "Pending", SECONDS)
    show(run)
    assert "Kueue stopped the run (ClusterQueueStopped)" in message_of(run)
    await stop_queue(world, "None")
    again = await world.trainer(RUN, attempt=2)
    await again.succeed()
    run = await world.phase(RUN, "Succeeded")
    assert run.status.attempts[0].reason == "Interrupted"


async def test_a_workload_that_an_administrator_deactivates_says_how_to_go_on(
    world: World, queue: None
):
    trainer = await start_training(world)
    workload = await workload_of(world)
    name = workload["metadata"]["name"]
    change = ("patch", "workloads.kueue.x-k8s.io", name, "--type=merge", "-p")
    await world.kubectl(*change, json.dumps({"spec": {"active": False}}))
    run = await world.until(RUN, lambda run: "saves and stops" in message_of(run), SECONDS)
    show(run)
    await save_and_end(world, trainer)
    run = await world.until(RUN, lambda run: "set its spec.active" in message_of(run), SECONDS)
    show(run)
    await world.kubectl(*change, json.dumps({"spec": {"active": True}}))
    await (await world.trainer(RUN, attempt=2)).succeed()
    await world.phase(RUN, "Succeeded")


@pytest.mark.parametrize("begun", [False, True], ids=["waits", "trains"])
async def test_a_run_that_is_cancelled_leaves_its_quota_to_the_next(
    world: World, queue: None, begun: bool
):
    trainer = await start_training(world)
    await world.submit(OTHER)
    await world.until(OTHER, lambda run: "is number 1" in message_of(run), SECONDS)
    if begun:
        await world.control(RUN, cancel=True)
        await world.until(RUN, lambda run: run.status.condition("Ready").reason != "Training")
        await save_and_end(world, trainer)
        await world.phase(RUN, "Cancelled")
        await (await world.trainer(OTHER)).succeed()
        await world.phase(OTHER, "Succeeded")
        return
    await world.control(OTHER, cancel=True)
    await world.phase(OTHER, "Cancelled")
    assert await world.jobs(OTHER) == []
    await trainer.succeed()
    await world.phase(RUN, "Succeeded")
