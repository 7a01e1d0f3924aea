"""Conditions: what tools read from each phase, and when a condition has changed."""

from datetime import timedelta

import pytest

from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.plan.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    DesiredCondition,
    phase_conditions,
    with_times,
)
from tests.plan.worlds import NOW

PHASES = [
    (Phase.PENDING, UNKNOWN, FALSE, TRUE, FALSE),
    (Phase.STARTING, UNKNOWN, TRUE, FALSE, FALSE),
    (Phase.RUNNING, UNKNOWN, TRUE, FALSE, FALSE),
    (Phase.RETRYING, UNKNOWN, TRUE, FALSE, FALSE),
    (Phase.SUSPENDED, UNKNOWN, TRUE, FALSE, FALSE),
    (Phase.CANCELLING, UNKNOWN, FALSE, TRUE, FALSE),
    (Phase.CANCELLED, FALSE, TRUE, FALSE, FALSE),
    (Phase.SUCCEEDED, TRUE, TRUE, FALSE, FALSE),
    (Phase.FAILED, FALSE, FALSE, FALSE, TRUE),
]


@pytest.mark.parametrize(("phase", "succeeded", "ready", "reconciling", "stalled"), PHASES)
def test_each_phase_has_four_conditions(phase, succeeded, ready, reconciling, stalled) -> None:
    conditions = phase_conditions(phase, Reason.TRAINING, "A message.")

    assert {condition.type: condition.status for condition in conditions} == {
        ConditionType.SUCCEEDED: succeeded,
        ConditionType.READY: ready,
        ConditionType.RECONCILING: reconciling,
        ConditionType.STALLED: stalled,
    }


def test_every_phase_is_in_the_table() -> None:
    assert {row[0] for row in PHASES} == set(Phase)


READY = DesiredCondition(ConditionType.READY, TRUE, Reason.TRAINING, "A message.")


@pytest.mark.parametrize(
    ("next_condition", "changed"),
    [
        (READY, False),
        (DesiredCondition(ConditionType.READY, TRUE, Reason.FINISHING, "Another one."), False),
        (DesiredCondition(ConditionType.READY, FALSE, Reason.TRAINING, "A message."), True),
    ],
    ids=["nothing changes", "reason and message change", "the status changes"],
)
def test_only_a_change_of_status_is_a_transition(next_condition, changed) -> None:
    later = NOW + timedelta(minutes=1)
    [before] = with_times((), [READY], 1, NOW)
    [after] = with_times([before], [next_condition], 2, later)

    assert before.last_transition_time == NOW
    assert after.last_transition_time == (later if changed else NOW)
    assert after.observed_generation == 2
    assert (after.reason, after.message) == (next_condition.reason, next_condition.message)


def test_a_long_message_is_cut_to_what_a_condition_may_have() -> None:
    long = DesiredCondition(ConditionType.READY, TRUE, Reason.TRAINING, "x" * 5000)

    assert [len(item.message) for item in with_times((), [long], 1, NOW)] == [2048]
