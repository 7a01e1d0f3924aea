"""The operator's own record of an end: a run whose status is older ends again, without training."""

from dataclasses import replace

import pytest

from flashrun.api.reasons import TERMINAL
from flashrun.api.resource import FlashRunStatus
from flashrun.plan import endings
from tests.plan import worlds
from tests.plan.worlds import World, failed_job, make_pod, make_run, running


def without_status(world: World) -> World:
    return replace(world, run=world.run.model_copy(update={"status": FlashRunStatus()}))


RESTORED = {
    "before it began": World(make_run()),
    "while its first pod trained": running(),
    "while it trained, without status": without_status(running()),
    "without its Job": running().seeing(jobs=(), pods=()),
    "while it was suspended": running().switched(suspend=True),
    "while its result was there": running(result=worlds.result(), adapter=worlds.ADAPTER),
}


@pytest.mark.parametrize("ending", worlds.ENDINGS, ids=lambda ending: ending.phase)
@pytest.mark.parametrize("world", RESTORED.values(), ids=RESTORED)
def test_a_run_of_an_older_backup_ends_as_it_did_and_starts_no_pod(world, ending) -> None:
    decision = world.stored(ending=ending).decide()
    status = decision.status

    assert (status.phase, status.completion_time) == (ending.phase, ending.ended)
    assert status.failure == endings.failure_of(ending)
    assert status.gpu_seconds >= ending.gpu_seconds
    assert (decision.apply, decision.secrets, decision.access) == ((), None, None)
    assert len(decision.delete) == len(world.observed.jobs)
    ready = status.condition("Ready")
    assert ready is not None
    assert ready.reason == ending.reason


def test_a_job_that_has_ended_stays_for_its_logs() -> None:
    world = running().seeing(pods=(make_pod(exit_code=72),))
    failed = world.seeing(jobs=tuple(map(failed_job, world.observed.jobs)))

    assert failed.stored(ending=worlds.ENDINGS[1]).decide().delete == ()


FINISHED = {
    "a success": worlds.finished(result=worlds.result(), adapter=worlds.ADAPTER),
    "a failure": worlds.finished(70, result=worlds.result(70, worlds.termination())),
    "a cancelled run": World(make_run(cancel=True)),
    "a refused spec": World(make_run({"model": "nobody/knows-it"})),
    "a Job without a result": running().seeing(
        pods=(make_pod(exit_code=72),), jobs=tuple(map(failed_job, running().observed.jobs))
    ),
}


@pytest.mark.parametrize("world", FINISHED.values(), ids=FINISHED)
def test_every_ending_is_the_same_when_it_is_read_back(world) -> None:
    status = world.decide().status
    assert status.phase in TERMINAL
    ending = endings.ending_of(world.run, status, world.now)

    again = World(make_run()).stored(ending=ending).later(days=3).decide().status
    assert again.phase is status.phase
    assert again.failure == status.failure
    assert again.completion_time == status.completion_time
    for kind in ("Ready", "Succeeded", "Stalled"):
        before, after = status.condition(kind), again.condition(kind)
        assert before is not None
        assert after is not None
        assert (after.status, after.reason, after.message) == (
            before.status,
            before.reason,
            before.message,
        )
