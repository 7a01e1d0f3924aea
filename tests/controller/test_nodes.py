"""Runs on several nodes: what a real API server and Job controller make of their Job."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit, Termination
from flashrun.api.platform import Pool
from flashrun.api.records import Batching, ResolvedRun, Scale
from tests.controller.stage import Kubelet, Object, Trainer, World
from tests.plan.worlds import job_retries, job_scale

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"
NODES = Pool(name="nodes", vram=4, gpus_per_node=2, max_nodes=2, cpu="1", memory="1Gi")
"""The model of these tests needs 12 GiB: three GPUs, and with a batch of 32, four."""


@pytest.fixture
def nodes(make_world: Callable[..., World]) -> Callable[..., World]:
    """A world with a pool of two nodes."""

    def make(**trainer: Any) -> World:
        world = make_world(**trainer)
        world.platform = world.platform.model_copy(update={"pools": (NODES,)})
        world.restart()
        return world

    return make


async def pods(world: World, *, but: tuple[Object, ...] = (), seconds: float = 40) -> list[Object]:
    """Wait for both pods of an attempt, the leader first; ``but`` are those of earlier ones."""
    known = {pod["metadata"]["name"] for pod in but}
    for _ in range(int(seconds * 5)):
        found = await world.cluster.list("Pod", world.namespace, {names.RUN_LABEL: RUN})
        fresh = {
            int(pod["metadata"]["labels"][names.POD_INDEX_LABEL]): pod
            for pod in found
            if pod["metadata"]["name"] not in known
        }
        if len(fresh) == 2:
            return [fresh[0], fresh[1]]
        await asyncio.sleep(0.2)
    raise AssertionError("the Job controller has not made two pods")


async def started(world: World, attempt: int = 1, **known: Any) -> tuple[Trainer, Object]:
    """Start both pods; returns the trainer in the leader, and the member."""
    leader, member = await pods(world, **known)
    for pod in (leader, member):
        await Kubelet(world.cluster).start(pod)
    store = (await world.trainer(RUN)).store
    return Trainer(world.cluster, store, await world.run(RUN), leader, attempt), member


async def test_two_nodes_are_an_indexed_job_and_a_service_that_belong_to_the_run(nodes):
    world = nodes()
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")

    job = await world.job(RUN)
    stem = names.object_stem(RUN, run.uid)
    service = await world.cluster.get("Service", world.namespace, f"{stem}-peers")
    assert [owner["uid"] for owner in service["metadata"]["ownerReferences"]] == [run.uid]
    assert service["spec"]["clusterIP"] == "None"
    assert job_scale(job) == Scale(nodes=2, gpus=2, sharded=True)
    assert job_retries(job) == 3

    for index, pod in enumerate(await pods(world)):
        assert pod["spec"]["hostname"] == f"{stem}-{index}"
        assert pod["spec"]["subdomain"] == f"{stem}-peers"
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        env = {item["name"] for item in pod["spec"]["containers"][0]["env"]}
        assert {"JOB_COMPLETION_INDEX", "FLASHRUN_LEADER"} <= env
    config_map = await world.spec_config_map(RUN)
    spec = ResolvedRun.model_validate_json(config_map["data"]["spec.json"])
    assert spec.scale == job_scale(job)

    await world.cluster.delete("Service", world.namespace, f"{stem}-peers")
    await world.pass_over(RUN)
    assert await world.cluster.find("Service", world.namespace, f"{stem}-peers")

    await world.cluster.delete(names.KIND, world.namespace, RUN)
    for _ in range(300):  # the garbage collector looks for new kinds every thirty seconds
        if not await world.cluster.find("Service", world.namespace, f"{stem}-peers"):
            break
        await asyncio.sleep(0.2)
    assert await world.cluster.find("Service", world.namespace, f"{stem}-peers") is None


async def test_the_leaders_success_is_the_runs(nodes):
    world = nodes()
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    leader, member = await started(world)
    leader.beat(
        3, batching=Batching(world_size=4, micro_batch_size=2, gradient_accumulation_steps=4)
    )
    run = await world.phase(RUN, "Running")
    assert run.status.resolved is not None
    assert (run.status.resolved.gpus, run.status.resolved.nodes) == (4, 2)
    assert run.status.resolved.batching is not None
    assert run.status.resolved.batching.micro_batch_size == 2

    await leader.succeed()
    run = await world.phase(RUN, "Succeeded")
    assert [attempt.pod for attempt in run.status.attempts] == [leader.name]
    job: Object = {}
    for _ in range(100):
        job = await world.job(RUN)
        left = await world.cluster.find("Pod", world.namespace, member["metadata"]["name"])
        if left is None and job["status"].get("completionTime"):
            break
        await asyncio.sleep(0.2)
    assert {item["type"] for item in job["status"]["conditions"]} >= {"Complete"}


async def test_what_a_member_cannot_do_ends_the_run_in_its_words(nodes):
    world = nodes()
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    leader, member = await started(world)
    leader.beat(3)
    await world.phase(RUN, "Running")
    said = Termination(reason="DataInvalid", message="Row 7 has no completion.")
    kubelet = Kubelet(world.cluster)
    await kubelet.end(member, Exit.DATA, message=said.model_dump_json())
    run = await world.phase(RUN, "Failed")

    assert run.status.failure is not None
    assert run.status.failure.reason == "DataInvalid"
    name = member["metadata"]["name"]
    assert run.status.failure.message == f"In pod {name}: Row 7 has no completion."
    assert [attempt.pod for attempt in run.status.attempts] == [leader.name]


async def test_an_attempt_of_two_pods_is_one_of_the_counted_retries(nodes):
    world = nodes(retries=1)
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    known: tuple[Object, ...] = ()
    for number in (1, 2):
        leader, member = await pods(world, but=known)
        known = (*known, leader, member)
        for pod, code in ((member, Exit.TEMPORARY), (leader, Exit.NCCL)):
            await Kubelet(world.cluster).start(pod)
            await Kubelet(world.cluster).end(pod, code)
        await world.pass_over(RUN)
        assert len((await world.run(RUN)).status.attempts) == number
    run = await world.phase(RUN, "Failed")

    assert run.status.failure is not None
    assert run.status.failure.reason == "StorageUnavailable"
    reasons = [attempt.reason for attempt in run.status.attempts]
    assert reasons == ["StorageUnavailable", "StorageUnavailable"]


async def test_both_pods_of_an_interrupted_attempt_are_replaced_and_not_counted(nodes):
    world = nodes(retries=0)
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    leader, member = await pods(world)
    for pod, code in ((member, Exit.TERMINATED), (leader, Exit.INTERRUPTED_UNSAVED)):
        await Kubelet(world.cluster).start(pod)
        await Kubelet(world.cluster).end(pod, code)
    again, _ = await started(world, attempt=2, but=(leader, member))
    await again.succeed()
    run = await world.phase(RUN, "Succeeded")

    assert [attempt.reason for attempt in run.status.attempts][:1] == ["Interrupted"]


async def test_a_suspended_run_rests_on_all_nodes(nodes):
    world = nodes()
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    first = await pods(world)
    await world.control(RUN, suspend=True)
    await world.phase(RUN, "Suspended")
    await world.control(RUN, suspend=False)
    await world.pass_over(RUN)
    again, _ = await started(world, but=tuple(first))
    await again.succeed()
    await world.phase(RUN, "Succeeded")
    assert await world.jobs(RUN) == [0]
