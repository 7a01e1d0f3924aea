"""The trainer's result in storage: what a success needs, and how a failure is explained."""

import pytest

from flashrun.api.exits import Exit
from flashrun.api.reasons import Phase
from flashrun.api.resource import ConditionStatus
from tests.plan import worlds
from tests.plan.worlds import ADAPTER, checkpoint, make_pod, running


def test_success_needs_the_result_and_the_adapter() -> None:
    world = running(checkpoints=(checkpoint(40),), result=worlds.result())
    done = world.stored(adapter=ADAPTER).seeing(pods=(make_pod(exit_code=0),))

    assert world.run.status.phase is Phase.RUNNING
    status = done.decide().status
    assert status.phase is Phase.SUCCEEDED
    assert status.adapter is not None
    assert status.completion_time == worlds.NOW
    assert status.condition("Succeeded").status is ConditionStatus.TRUE  # type: ignore[union-attr]


def test_a_failed_reward_is_explained_in_one_sentence() -> None:
    result = worlds.result(Exit.ENVIRONMENT, worlds.termination())
    status = worlds.finished(Exit.ENVIRONMENT, result=result).decide().status

    assert status.phase is Phase.FAILED
    assert status.failure is not None
    assert status.failure.message == "The reward raised."
    assert status.condition("Stalled").message == "The reward raised. See flash log."  # type: ignore[union-attr]


def test_a_result_concludes_nothing_while_a_pod_is_active() -> None:
    early = running().stored(result=worlds.result(), adapter=ADAPTER)
    bound = early.platform.trainer.upload_timeout_seconds
    first = early.decide()
    waiting = early.act(first)

    assert (first.status.phase, first.delete) == (Phase.RUNNING, ())
    ready = first.status.condition("Ready")
    assert ready is not None
    assert ready.reason == "Finishing"
    assert waiting.later(seconds=bound - 1).decide().delete == ()
    [job] = waiting.observed.jobs
    late = waiting.later(seconds=bound)
    assert [item.name for item in late.decide().delete] == [job["metadata"]["name"]]
    assert late.decide().status.phase is Phase.RUNNING
    gone = late.act(late.decide()).seeing(pods=()).decide().status
    assert gone.phase is Phase.SUCCEEDED
    assert gone.gpu_seconds == bound + 30


def test_no_pod_is_started_after_a_result() -> None:
    early = running().stored(result=worlds.result(), adapter=ADAPTER).settled()
    decision = early.seeing(jobs=()).decide()

    assert decision.apply == ()
    assert decision.status.phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("control", "phase"), [("cancel", Phase.CANCELLING), ("suspend", Phase.RUNNING)]
)
def test_a_person_may_stop_a_pod_that_goes_on_after_its_result(control, phase) -> None:
    early = running().stored(result=worlds.result(), adapter=ADAPTER).switched(**{control: True})
    decision = early.decide()

    assert decision.status.phase is phase
    assert decision.delete or decision.patch
    ended = early.act(decision).seeing(pods=()).decide()
    assert ended.status.phase is Phase.SUCCEEDED
