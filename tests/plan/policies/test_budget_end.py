"""A run that has used its GPU hours saves and pauses, and goes on when it has more."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.plan.budgets import NamespaceBudget
from tests.plan import worlds
from tests.plan.worlds import World, checkpoint, failed_job, make_pod, make_run, running

HOURS = {"budget": {"gpu_hours": 2}}
LONG = make_pod(age=timedelta(hours=2))
"""A pod that has held one GPU for two hours."""


def at_the_end() -> World:
    return running(HOURS, checkpoints=(checkpoint(5),)).seeing(pods=(LONG,))


def paused() -> World:
    ended = make_pod(exit_code=40, age=timedelta(hours=2))
    return at_the_end().settled().seeing(pods=(ended,)).settled()


def raised(world: World, hours: float | None) -> World:
    budget = world.run.spec.budget.replace(gpu_hours=hours)
    return World(
        world.run.replace(spec=world.run.spec.replace(budget=budget)), world.observed, now=world.now
    )


CASES: list[tuple[str, Callable[[], World], Phase, str]] = [
    ("before its end the run trains", lambda: running(HOURS), Phase.RUNNING, "at work"),
    (
        "at its end the trainer saves",
        at_the_end,
        Phase.RUNNING,
        "The trainer saves and stops: the run has used its 2 GPU hours.",
    ),
    (
        "then the run is paused and says how it goes on",
        paused,
        Phase.SUSPENDED,
        "The run has used 2 of its 2 GPU hours and is paused; 1 checkpoint kept. It goes on from "
        f"the newest one when spec.budget.gpuHours is raised (flash budget {worlds.NAME} HOURS).",
    ),
    (
        "what was raised too little is used up, too",
        lambda: raised(paused(), 1.5),
        Phase.SUSPENDED,
        "has used 2 of its 1.5 GPU hours and is paused",
    ),
    (
        "a suspended run is suspended by its user",
        lambda: paused().switched(suspend=True),
        Phase.SUSPENDED,
        "Paused by spec.control.suspend",
    ),
    (
        "a cancelled run ends",
        lambda: paused().switched(cancel=True),
        Phase.CANCELLING,
        "saves and stops",
    ),
    (
        "a run whose result is there has succeeded",
        lambda: paused().stored(result=worlds.result(), adapter=worlds.ADAPTER),
        Phase.SUCCEEDED,
        "Trained",
    ),
]


@pytest.mark.parametrize(("case", "make", "phase", "sentence"), CASES)
def test_what_a_run_with_a_budget_says(
    case: str, make: Callable[[], World], phase: Phase, sentence: str
) -> None:
    status = make().decide().status
    ready = status.condition(ConditionType.READY)
    assert status.phase is phase, case
    assert ready is not None
    assert sentence in ready.message, case


def test_the_job_is_suspended_and_a_higher_budget_wakes_it() -> None:
    assert at_the_end().decide().patch[0].body == {"spec": {"suspend": True}}
    pending = paused().run.status.pending
    assert pending is not None
    assert pending.reason is Reason.BUDGET_USED_UP
    for hours in (3, None):
        assert raised(paused(), hours).decide().patch[0].body == {"spec": {"suspend": False}}


def test_a_paused_run_stays_as_it_is_however_long_it_waits() -> None:
    world = paused()
    later = world.later(days=3).decide()
    assert (later.status, later.patch, later.delete) == (world.run.status, (), ())


def test_the_end_of_the_budget_is_due_in_time() -> None:
    soon = make_pod(age=timedelta(hours=2) - timedelta(seconds=40))
    assert running(HOURS).seeing(pods=(soon,)).decide().requeue_seconds == pytest.approx(40)


def test_a_run_that_failed_for_good_ends_although_its_budget_is_used_up() -> None:
    failed = make_pod(exit_code=70, termination=worlds.termination(), age=timedelta(hours=2))
    world = at_the_end().seeing(pods=(failed,))
    world = world.seeing(jobs=tuple(map(failed_job, world.observed.jobs)))
    assert world.decide().status.phase is Phase.FAILED


def test_a_retry_in_another_place_waits_for_the_budget() -> None:
    killed = make_pod(exit_code=137, reason="OOMKilled", age=timedelta(hours=2))
    world = at_the_end().seeing(pods=(killed,))
    decision = world.decide()
    assert decision.apply == ()
    assert decision.status.phase is Phase.SUSPENDED
    assert any(item["kind"] == "Job" for item in raised(world, 9).decide().apply)


def of_namespace(used_hours: float, gpus: int = 4, problem: str = "") -> NamespaceBudget:
    renewed = datetime(2026, 12, 1, tzinfo=UTC)
    return NamespaceBudget(100, used_hours * 3600, gpus, renewed, problem)


SHARED = (
    "The runs of namespace team-a have used its 100 GPU hours of this month: they wait until "
    "2026-12-01, or until the platform's administrator raises budgets.team-a."
)


def test_a_run_that_has_not_begun_waits_for_the_hours_of_its_namespace() -> None:
    world = World(make_run())
    for used, waits in ((99.9, False), (100, True), (250, True)):
        decision = world.seeing(namespace_budget=of_namespace(used)).decide()
        assert any(item["kind"] == "Job" for item in decision.apply) is not waits
        if waits:
            pending = decision.status.pending
            assert pending is not None
            assert (pending.reason, pending.message) == (Reason.NAMESPACE_BUDGET_USED_UP, SHARED)
            assert decision.status.phase is Phase.PENDING
            assert decision.requeue_seconds == 60


def test_a_run_waits_while_it_is_not_known_what_its_namespace_has_used() -> None:
    unknown = of_namespace(0, problem="Storage does not answer.")
    waiting = World(make_run()).seeing(namespace_budget=unknown).decide()
    assert (waiting.apply, waiting.status.phase) == ((), Phase.PENDING)
    trains = running().seeing(namespace_budget=unknown).decide()
    assert (trains.patch, trains.status.phase) == ((), Phase.RUNNING)


def test_a_running_run_saves_and_pauses_with_its_namespace_and_goes_on_next_month() -> None:
    over = running().seeing(namespace_budget=of_namespace(100))
    stopping = over.decide()
    assert stopping.patch[0].body == {"spec": {"suspend": True}}
    ended = make_pod(exit_code=40, age=timedelta(minutes=5))
    paused = over.act(stopping).seeing(pods=(ended,)).settled()
    assert paused.run.status.phase is Phase.SUSPENDED
    assert paused.decide().requeue_seconds == 60
    ready = paused.run.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.message == SHARED
    december = paused.seeing(namespace_budget=of_namespace(0, gpus=0))
    assert december.decide().patch[0].body == {"spec": {"suspend": False}}


@pytest.mark.parametrize(("used", "seconds"), [(99.99, 9), (90, 60)])
def test_the_hours_of_a_namespace_are_looked_at_in_time(used: float, seconds: float) -> None:
    decision = running().seeing(namespace_budget=of_namespace(used)).decide()
    assert decision.requeue_seconds == pytest.approx(seconds)
