"""Budgets of GPU hours with a real API server: a run pauses, and goes on when more is allowed."""

from datetime import timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.resource import FlashRun
from flashrun.api.times import format_time
from flashrun.cluster_errors import Invalid
from tests.controller.stage import Kubelet, Trainer, World, now

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"


async def take_on(world: World, run: str, minutes: float) -> dict[str, Any]:
    """Start the trainer in the pod of a run, which a kubelet took on so many minutes ago."""
    pod = await world.pod(run)
    accepted = format_time(now() - timedelta(minutes=minutes))
    running = {"running": {"startedAt": accepted}}
    await Kubelet(world.cluster).say(pod, "Running", running, startTime=accepted)
    return pod


async def save_and_stop(world: World, run: str, pod: dict[str, Any], minutes: float) -> None:
    """Do what a trainer does that is asked to stop."""
    Trainer(world.cluster, world.store, await world.run(run), pod, 1).commit(5)
    worked = timedelta(minutes=minutes)
    accepted = format_time(now() - worked)
    await Kubelet(world.cluster).end(pod, Exit.INTERRUPTED_SAVED, worked=worked, startTime=accepted)


def reason_of(run: FlashRun) -> str:
    ready = run.status.condition(ConditionType.READY)
    return "" if ready is None else ready.reason


async def suspended(world: World, run: str) -> bool:
    job = await world.job(run)
    return bool(job["spec"].get("suspend"))


async def test_a_run_saves_and_pauses_with_its_budget_and_goes_on_when_it_is_raised(
    world: World,
) -> None:
    await world.submit(RUN, budget={"gpuHours": 0.5})
    await world.until(RUN, lambda run: run.status.resolved)
    pod = await take_on(world, RUN, minutes=29)
    await world.bind(pod, "node-1")  # on a node, a pod has time to end
    await world.phase(RUN, Phase.RUNNING)
    assert not await suspended(world, RUN)

    pod = await take_on(world, RUN, minutes=31)
    await world.until(RUN, lambda run: reason_of(run) == Reason.BUDGET_USED_UP)
    assert await suspended(world, RUN)
    await save_and_stop(world, RUN, pod, 31)
    await world.cluster.delete("Pod", world.namespace, pod["metadata"]["name"], grace_seconds=0)
    run = await world.phase(RUN, Phase.SUSPENDED)
    assert run.status.pending is not None
    assert run.status.pending.message == (
        "The run has used 0.52 of its 0.5 GPU hours and is paused; 1 checkpoint kept. It goes on "
        f"from the newest one when spec.budget.gpuHours is raised (flash budget {RUN} HOURS)."
    )
    await world.pass_over(RUN)
    before = await world.cluster.get(names.KIND, world.namespace, RUN)
    await world.pass_over(RUN)
    after = await world.cluster.get(names.KIND, world.namespace, RUN)
    assert before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]

    raised = {"spec": {"budget": {"gpuHours": 2}}}
    await world.cluster.patch(names.KIND, world.namespace, RUN, raised)
    await world.pass_over(RUN)
    assert not await suspended(world, RUN)
    assert await world.jobs(RUN) == [0]
    await (await world.trainer(RUN, attempt=2)).succeed()
    ended = await world.phase(RUN, Phase.SUCCEEDED)
    assert len(ended.status.attempts) == 2


async def test_the_api_server_takes_a_changed_budget_and_no_nonsense(world: World) -> None:
    await world.submit(RUN)
    for hours in (5, 0.25):
        body = {"spec": {"budget": {"gpuHours": hours}}}
        await world.cluster.patch(names.KIND, world.namespace, RUN, body)
    assert (await world.run(RUN)).spec.budget.gpu_hours == 0.25
    for nonsense in (0, -1, "many", 2_000_000):
        body = {"spec": {"budget": {"gpuHours": nonsense}}}
        with pytest.raises(Invalid):
            await world.cluster.patch(names.KIND, world.namespace, RUN, body)
    await world.cluster.patch(names.KIND, world.namespace, RUN, {"spec": {"budget": None}})
    assert (await world.run(RUN)).spec.budget.gpu_hours is None
