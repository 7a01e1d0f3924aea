"""The wall-clock limit begins with the first pod on a node: waiting for GPUs is free."""

from datetime import timedelta
from typing import Any

import pytest

from flashrun.plan.types import Object
from tests.plan.worlds import NOW, PLATFORM, World, make_pod, make_run

LIMIT = PLATFORM.trainer.wall_clock_seconds
HOUR = 3600


def text(moment: Any) -> str:
    return str(moment.isoformat().replace("+00:00", "Z"))


def started(hours: float, *pods: Object, **spec: Any) -> World:
    """A run whose Job started so long ago."""
    world = World(make_run()).settled()
    [job] = world.observed.jobs
    status = {"startTime": text(NOW - timedelta(hours=hours))}
    return world.seeing(pods=pods, jobs=({**job, "spec": job["spec"] | spec, "status": status},))


def deadline(world: World) -> int:
    """The deadline of the Job after a pass."""
    [job] = world.act(world.decide()).observed.jobs
    seconds: int = job["spec"]["activeDeadlineSeconds"]
    return seconds


def waiting(hours: float) -> Object:
    return make_pod(unschedulable="0/3 nodes are available", age=timedelta(hours=hours))


@pytest.mark.parametrize("hours", [0.02, 5, 30, 24 * 30])
def test_a_run_may_wait_for_gpus_as_long_as_it_has_to(hours: float) -> None:
    left = deadline(started(hours, waiting(hours))) - hours * HOUR

    assert LIMIT + 6 * HOUR <= left <= LIMIT + 12 * HOUR


@pytest.mark.parametrize("pod", [waiting(0.002), make_pod(age=timedelta(seconds=5))])
def test_a_job_whose_pods_begin_at_once_needs_no_other_deadline(pod: Object) -> None:
    world = started(0.002, pod)

    assert world.decide().patch == ()
    assert LIMIT < deadline(world) <= LIMIT + 30


def test_the_deadline_of_a_run_that_waits_is_seldom_written() -> None:
    world = started(1, waiting(1))
    world = world.act(world.decide())

    assert world.later(hours=4).decide().patch == ()
    assert world.later(hours=6).decide().patch != ()


def test_the_limit_counts_from_the_first_pod_on_a_node() -> None:
    first = make_pod("pod-0", exit_code=75, age=timedelta(hours=2), ended=timedelta(hours=1))
    again = make_pod("pod-1", age=timedelta(hours=1))

    assert deadline(started(30, make_pod(age=timedelta(hours=2)))) == LIMIT + 28 * HOUR
    assert deadline(started(30, first, again)) == LIMIT + 28 * HOUR


def test_it_stays_when_the_first_pod_is_gone() -> None:
    first = make_pod("pod-0", exit_code=75, age=timedelta(hours=2), ended=timedelta(hours=1))
    world = started(30, first)
    world = world.act(world.decide())

    assert deadline(world.seeing(pods=())) == LIMIT + 28 * HOUR
    later = world.seeing(pods=(make_pod("pod-1", age=timedelta(minutes=5)),))
    assert deadline(later) == LIMIT + 28 * HOUR


def test_pods_from_before_the_job_was_resumed_do_not_count() -> None:
    before = make_pod("pod-0", exit_code=40, age=timedelta(hours=9), ended=timedelta(hours=8))

    assert deadline(started(1, before, make_pod("pod-1"))) == LIMIT + HOUR - 30


def test_a_suspended_job_keeps_its_deadline() -> None:
    suspended = started(30, suspend=True, activeDeadlineSeconds=LIMIT + 28 * HOUR)

    assert deadline(suspended.switched(suspend=True)) == LIMIT + 28 * HOUR


def test_time_that_was_waited_is_not_used_up_for_the_next_job() -> None:
    pods = tuple(
        make_pod(
            f"pod-{number}", exit_code=40, age=timedelta(hours=age), ended=timedelta(hours=end)
        )
        for number, (age, end) in enumerate(((3, 2), (2, 0)))
    )
    world = started(20, *pods)
    world = world.act(world.decide())
    [new] = [job for job in world.observed.jobs if "status" not in job]

    assert new["spec"]["activeDeadlineSeconds"] == LIMIT - 3 * HOUR + 30
