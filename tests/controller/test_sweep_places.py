"""Sweeps with a real API server: so many runs at once, and the worse ones end."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.records import CheckpointEvaluation, Evaluation, EvaluationPoint
from flashrun.api.resource import FlashRun, FlashRunSpec, FlashRunStatus
from flashrun.controller.sweep_places import FRESH_SECONDS, LAUNCHED_SECONDS, SweepPlaces
from tests.controller.clocks import Clock
from tests.controller.stage import World

RUNS = ("ranks-a", "ranks-b", "ranks-c")
SWEEP = {"name": "ranks", "limit": 1}


class Listed:
    """A cluster with runs of one sweep."""

    def __init__(self, **phases: str) -> None:
        self.phases, self.asked = phases, 0

    async def newest(self, *arguments: Any) -> tuple[dict[str, Any], ...]:
        self.asked += 1
        await asyncio.sleep(0)
        return tuple(
            {"metadata": {"name": name, "uid": name}, "status": {"phase": phase}}
            for name, phase in self.phases.items()
        )


def in_sweep(name: str, **sweep: Any) -> FlashRun:
    table = {"model": "a/b", "environment": {"id": "org/env"}, "sweep": {**SWEEP, **sweep}}
    spec = FlashRunSpec.validate_manifest(table)
    return FlashRun(name=name, namespace="team", uid=name, created=datetime.now(UTC), spec=spec)


async def test_the_runs_of_a_sweep_are_read_once_for_all_of_them() -> None:
    clock, cluster = Clock(), Listed(a="Pending", b="Pending")
    places = SweepPlaces(cluster, clock)  # type: ignore[arg-type]
    for name in ("a", "b", "a"):
        view = await places.view(in_sweep(name))
        assert view is not None
        assert [member.uid for member in view.members] == ["a", "b"]
    assert cluster.asked == 1
    clock.now += FRESH_SECONDS
    await places.view(in_sweep("a"))
    assert cluster.asked == 2


async def test_a_run_that_has_begun_needs_no_list_unless_worse_runs_end() -> None:
    cluster = Listed(a="Running")
    places = SweepPlaces(cluster, Clock())  # type: ignore[arg-type]
    begun = FlashRunStatus.validate_manifest({"resolved": {"environmentDigest": "d"}})
    assert await places.view(in_sweep("a").replace(status=begun)) is None
    assert cluster.asked == 0
    stopping = in_sweep("a", stopWorse={"firstStep": 1}).replace(status=begun)
    assert await places.view(stopping) is not None


async def test_a_run_that_was_just_started_is_known_until_its_status_shows_it_or_it_failed() -> (
    None
):
    clock, cluster = Clock(), Listed(a="Pending", b="Pending")
    places = SweepPlaces(cluster, clock)  # type: ignore[arg-type]
    places.note_launch(in_sweep("a"))
    view = await places.view(in_sweep("b"))
    assert view is not None
    assert view.launched == {"a"}
    cluster.phases["a"] = "Succeeded"
    clock.now += FRESH_SECONDS
    view = await places.view(in_sweep("b"))
    assert view is not None
    assert view.launched == set()
    places.note_launch(in_sweep("b"))
    clock.now += LAUNCHED_SECONDS + 1
    view = await places.view(in_sweep("b"))
    assert view is not None
    assert view.launched == set()


async def submit(world: World, *runs: str, **sweep: Any) -> None:
    for name in runs:
        await world.submit(name, sweep={**SWEEP, **sweep})


async def begun(world: World) -> list[str]:
    """The runs that have Jobs."""
    return [name for name in RUNS if await world.jobs(name)]


@pytest.mark.api
async def test_so_many_runs_of_a_sweep_run_at_once_and_failures_do_not_stop_the_others(
    world: World,
) -> None:
    await submit(world, *RUNS)
    await asyncio.gather(*(world.pass_over(name) for name in RUNS))
    assert await begun(world) == ["ranks-a"]
    waiting = (await world.run("ranks-b")).status
    assert waiting.pending is not None
    assert waiting.pending.reason is Reason.SWEEP_LIMIT

    trainer = await world.trainer("ranks-a")
    await trainer.end(Exit.DATA)
    await world.phase("ranks-a", Phase.FAILED)
    await world.until("ranks-b", lambda run: run.status.resolved)
    await world.pass_over("ranks-c")
    assert await begun(world) == ["ranks-a", "ranks-b"]

    await (await world.trainer("ranks-b")).succeed()
    await world.phase("ranks-b", Phase.SUCCEEDED)
    await world.until("ranks-c", lambda run: run.status.resolved)


@pytest.mark.api
async def test_another_operator_keeps_the_limit(world: World) -> None:
    await submit(world, *RUNS)
    await world.until("ranks-a", lambda run: run.status.resolved)
    world.restart()
    await world.pass_over("ranks-b")
    assert await begun(world) == ["ranks-a"]


@pytest.mark.api
async def test_a_run_of_another_sweep_or_of_none_does_not_count(world: World) -> None:
    await submit(world, "ranks-a")
    await world.submit("ranks-b", sweep={"name": "other", "limit": 1})
    await world.submit("ranks-c")
    for name in RUNS:
        await world.until(name, lambda run: run.status.resolved)


@pytest.mark.api
async def test_the_worse_run_of_two_ends_at_the_first_rung_and_the_better_one_goes_on(
    world: World,
) -> None:
    runs = {"ranks-a": 0.75, "ranks-b": 0.25}
    await submit(world, *runs, limit=2, stopWorse={"firstStep": 5})
    for name, score in runs.items():
        await world.until(name, lambda run: run.status.resolved)
        trainer = await world.trainer(name)
        trainer.claim()
        trainer.commit(5, CheckpointEvaluation(metric="score", score=score))
        point = EvaluationPoint(step=5, score=score)
        measured = Evaluation(metric="score", last=point, best=point, examples=8)
        trainer.beat(5, commits=1, evaluation=measured)
        await world.until(name, lambda run: run.status.sweep and run.status.sweep.rungs)
    stopped = await world.phase("ranks-b", Phase.CANCELLED)
    ready = stopped.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.STOPPED_BY_SWEEP
    await world.pass_over("ranks-a")
    assert (await world.run("ranks-a")).status.phase is Phase.RUNNING
