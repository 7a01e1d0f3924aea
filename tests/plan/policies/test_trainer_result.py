"""The trainer's result in storage: what a success needs, and how a failure is explained."""

from flashrun.api.exits import Exit
from flashrun.api.reasons import Phase
from flashrun.api.resource import ConditionStatus
from tests.plan import worlds
from tests.plan.worlds import ADAPTER, checkpoint, running


def test_success_needs_the_result_and_the_adapter() -> None:
    world = running(checkpoints=(checkpoint(40),), result=worlds.result())
    done = world.stored(adapter=ADAPTER)

    assert world.run.status.phase is Phase.RUNNING
    status = done.decide().status
    assert status.phase is Phase.SUCCEEDED
    assert status.adapter is not None
    assert status.completion_time == worlds.NOW
    assert status.condition("Succeeded").status is ConditionStatus.TRUE  # type: ignore[union-attr]


def test_a_failed_reward_is_explained_in_one_sentence() -> None:
    world = running(result=worlds.result(Exit.ENVIRONMENT, worlds.termination()))
    status = world.run.status

    assert status.phase is Phase.FAILED
    assert status.failure is not None
    assert status.failure.message == "The reward raised."
    assert status.condition("Stalled").message == "The reward raised. See flash log."  # type: ignore[union-attr]
