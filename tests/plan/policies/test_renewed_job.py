"""Another Job for a run whose Job would wait long after an interruption, or fail when resumed."""

from datetime import timedelta

import pytest

from flashrun.api import names
from flashrun.api.reasons import Phase
from flashrun.plan.types import Decision, Object
from tests.plan.worlds import (
    PLATFORM,
    World,
    failed_job,
    job_number,
    job_retries,
    make_pod,
    running,
)

HOUR = timedelta(hours=1)
STARTED = "2026-11-22T09:00:00Z"


def interrupted(*codes: int, worked: timedelta = HOUR, **state: object) -> World:
    """A run whose pods of one Job ended with these codes, the last one just now."""
    pods = tuple(
        make_pod(
            f"pod-{number}",
            exit_code=code,
            age=(len(codes) - number) * 2 * HOUR + worked,
            ended=(len(codes) - number) * 2 * HOUR,
            **state,  # type: ignore[arg-type]
        )
        for number, code in enumerate(codes, start=1)
    )
    world = running()
    [job] = world.observed.jobs
    return world.seeing(pods=pods, jobs=({**job, "status": {"startTime": STARTED}},))


def new_jobs(decision: Decision) -> list[Object]:
    return [item for item in decision.apply if item["kind"] == "Job"]


def test_a_second_interruption_continues_in_another_job_at_once() -> None:
    world = interrupted(40, 40)
    decision = world.decide()
    [job] = new_jobs(decision)
    [before] = world.observed.jobs

    assert job_number(job) == 1
    assert [(patch.name, patch.body) for patch in decision.patch] == [
        (before["metadata"]["name"], {"spec": {"suspend": True}})
    ]
    assert decision.status.phase is Phase.RETRYING
    ready = decision.status.condition("Ready")
    assert ready is not None
    assert "would have waited until 2026-11-22T12:00:20Z" in ready.message
    after = world.act(decision).decide()
    assert (new_jobs(after), after.patch) == ([], ())


def test_the_other_job_has_what_is_left_of_time_and_of_retries() -> None:
    [job] = new_jobs(interrupted(75, 40).decide())
    limits = PLATFORM.trainer

    assert job_retries(job) == limits.retries - 1
    deadline = job["spec"]["activeDeadlineSeconds"]
    assert deadline == limits.wall_clock_seconds - 3 * 3600 + 30


def test_the_first_interruption_waits_ten_seconds() -> None:
    assert new_jobs(interrupted(40).decide()) == []


SHORT = [
    ("a counted failure", interrupted(75, 75)),
    ("an attempt that ended sooner than the wait lasts",
     interrupted(40, 40, worked=timedelta(seconds=19))),
    ("a Job that has failed", interrupted(40, 70)),
]  # fmt: skip


@pytest.mark.parametrize("world", [row[1] for row in SHORT], ids=[row[0] for row in SHORT])
def test_the_back_off_stays_where_it_protects(world: World) -> None:
    assert new_jobs(world.decide()) == []


def test_a_job_in_a_queue_keeps_its_place_and_says_when_it_tries_again() -> None:
    """Another Job would wait at the end of the queue."""
    world = interrupted(40, 40)
    [job] = world.observed.jobs
    labels = {**job["metadata"]["labels"], names.QUEUE_LABEL: "team-queue"}
    queued = {**job, "metadata": {**job["metadata"], "labels": labels}}
    decision = world.seeing(jobs=(queued,)).decide()
    ready = decision.status.condition("Ready")

    assert (new_jobs(decision), decision.patch, decision.delete) == ([], (), ())
    assert ready is not None
    assert "creates the next pod at 2026-11-22T12:00:20Z" in ready.message


def test_a_preemption_that_left_no_exit_code_of_an_interruption_is_one() -> None:
    assert new_jobs(interrupted(70, 70, disrupted="PreemptionByScheduler").decide()) != []


def test_jobs_for_interruptions_are_not_retries_on_larger_gpus() -> None:
    world = interrupted(40, 40)
    for _ in range(PLATFORM.trainer.retries + 1):
        world = world.act(world.decide())
        number = world.run.status.resolved.job if world.run.status.resolved else 0
        pods = tuple(
            make_pod(
                f"job-{number}-{pod}", exit_code=40, number=number,
                age=(3 - pod) * 2 * HOUR, ended=(3 - pod) * 2 * HOUR - HOUR,
            )
            for pod in (1, 2)
        )  # fmt: skip
        world = world.seeing(pods=pods)
    outgrown = make_pod("too-large", exit_code=65, number=number)
    decision = world.seeing(pods=(outgrown,)).decide()

    assert decision.status.resolved is not None
    assert decision.status.resolved.pool == "large"


def suspended(started: str) -> World:
    """A run that is resumed after its Job was suspended."""
    world = running()
    [job] = world.observed.jobs
    job = {**job, "spec": {**job["spec"], "suspend": True}, "status": {"startTime": started}}
    return world.seeing(jobs=(job,), pods=(make_pod(exit_code=40),))


def test_a_job_resumed_after_its_deadline_is_replaced_and_one_before_it_is_resumed() -> None:
    late, early = suspended("2026-11-01T12:00:00Z").decide(), suspended(STARTED).decide()
    [job] = new_jobs(late)

    assert job_number(job) == 1
    assert job["spec"]["activeDeadlineSeconds"] == PLATFORM.trainer.wall_clock_seconds + 30
    assert late.patch == ()  # the earlier Job stays suspended
    assert new_jobs(early) == []
    assert [patch.body for patch in early.patch] == [{"spec": {"suspend": False}}]


def test_a_run_that_stays_suspended_keeps_its_job() -> None:
    decision = suspended("2026-11-01T12:00:00Z").switched(suspend=True).decide()

    assert new_jobs(decision) == []
    assert decision.status.phase is Phase.SUSPENDED


NO_NODE = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."


def away_from_a_broken_node() -> World:
    """A run whose second Job avoids the node on which the first one failed."""
    broken = running().seeing(pods=(make_pod(exit_code=66),))
    [job] = broken.observed.jobs
    world = broken.seeing(jobs=(failed_job(job),)).settled()
    assert world.run.status.resolved is not None
    assert world.run.status.resolved.avoid_nodes == ("node-1",)
    waiting = make_pod("pod-2", number=1, unschedulable=NO_NODE, age=timedelta(0))
    return world.seeing(pods=(*world.observed.pods, waiting))


@pytest.mark.parametrize(("minutes", "returns"), [(9, False), (11, True)])
def test_a_run_returns_to_a_node_that_it_avoids_when_there_is_no_other(
    minutes: int, returns: bool
) -> None:
    world = away_from_a_broken_node().later(minutes=minutes)
    decision = world.decide()

    assert len(new_jobs(decision)) == int(returns)
    if returns:
        [job] = new_jobs(decision)
        assert "affinity" not in job["spec"]["template"]["spec"]
        assert job_number(job) == 2
        assert decision.status.resolved is not None
        assert decision.status.resolved.avoid_nodes == ()
        assert decision.status.resolved.renewals == 1  # waiting is not a retry
        ready = decision.status.condition("Ready")
        assert ready is not None
        assert "may run on node-1 again" in ready.message
        after = world.act(decision)
        assert new_jobs(after.decide()) == []


def test_pods_that_wait_for_a_free_gpu_elsewhere_do_not_return_while_one_trains() -> None:
    world = away_from_a_broken_node().later(minutes=30)
    training = make_pod("pod-3", number=1, node="node-2")
    assert new_jobs(world.seeing(pods=(*world.observed.pods[:1], training)).decide()) == []
