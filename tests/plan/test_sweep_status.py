"""The rungs that a run of a sweep has reached."""

from flashrun.api.records import CheckpointEvaluation
from flashrun.api.sweep import RungStatus
from tests.plan.worlds import World, checkpoint, running

SWEEP = {"sweep": {"name": "ranks", "stop_worse": {"first_step": 10}}}


def scored(step: int, score: float | None) -> object:
    if score is None:
        return checkpoint(step)
    return checkpoint(step, evaluation=CheckpointEvaluation(metric="score", score=score))


def rungs(world: World) -> tuple[RungStatus, ...]:
    sweep = world.decide().status.sweep
    return () if sweep is None else sweep.rungs


def test_a_rung_is_reached_by_the_first_evaluated_checkpoint_at_or_after_it() -> None:
    saved = [scored(5, 0.9), scored(10, None), scored(15, 0.25), scored(20, 0.5)]
    world = running(SWEEP, checkpoints=saved)
    assert [(item.rung, item.step, item.score) for item in rungs(world)] == [
        (10, 15, "0.25"),
        (20, 20, "0.5"),
    ]


def test_a_run_of_a_sweep_that_stops_none_records_no_rungs() -> None:
    world = running({"sweep": {"name": "ranks"}}, checkpoints=[scored(10, 0.5)])
    assert world.decide().status.sweep is None


def test_a_recorded_rung_stays_when_a_later_attempt_evaluates_it_again() -> None:
    world = running(SWEEP, checkpoints=[scored(10, 0.5)]).settled()
    again = world.stored(checkpoints=[scored(10, 0.1)])
    assert rungs(again)[0].score == "0.5"
    assert rungs(world.stored(problem="Storage cannot be read."))[0].score == "0.5"
