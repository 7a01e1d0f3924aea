"""Cancellation: the Job goes, the checkpoints stay."""

from flashrun.api import names
from flashrun.api.reasons import Phase
from tests.plan import worlds
from tests.plan.worlds import World, checkpoint, make_pod, make_run, running


def test_cancel_stops_the_job_and_says_what_was_kept() -> None:
    world = running(checkpoints=(checkpoint(10),)).switched(cancel=True)

    first = world.decide()
    ended = world.act(first).seeing(pods=(make_pod(exit_code=40),))
    last = ended.decide()

    assert [delete.name for delete in first.delete] == [names.object_stem(worlds.NAME, worlds.UID)]
    assert first.status.phase is Phase.CANCELLING
    assert last.status.phase is Phase.CANCELLED
    assert last.status.condition("Ready").message == (  # type: ignore[union-attr]
        f"Cancelled; 1 checkpoint kept, the newest is {worlds.NAME}/step-10."
    )


def test_a_cancelled_run_whose_evaluation_was_stopped_says_why_it_has_no_score() -> None:
    stopped = checkpoint(10, evaluation_stopped=True)
    world = running(checkpoints=(stopped,)).switched(cancel=True)
    ended = world.act(world.decide()).seeing(pods=(make_pod(exit_code=40),))

    assert (
        ended.decide()
        .status.condition("Ready")
        .message.endswith(  # type: ignore[union-attr]
            "step-10 (without a score, because its evaluation was stopped)."
        )
    )


def test_a_run_cancelled_before_its_start_creates_nothing() -> None:
    decision = World(make_run(cancel=True)).decide()

    assert decision.status.phase is Phase.CANCELLED
    assert decision.apply == ()
