"""Conditions after the Kubernetes API conventions, readable by kstatus.

``Ready``, ``Reconciling`` and ``Stalled`` follow kstatus, so that ``kubectl wait``, Argo CD and
Flux can judge a run without knowing its type: a queued or a running run is Ready, because it is as
it should be; a failed run is Stalled.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from flashrun.api.reasons import AnyReason, ConditionType, Phase
from flashrun.api.resource import Condition, ConditionStatus

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True)
class DesiredCondition:
    """A condition that a decision sets; it has no times yet."""

    type: ConditionType
    status: ConditionStatus
    reason: AnyReason
    message: str = ""


def with_times(
    previous: Iterable[Condition],
    desired: Iterable[DesiredCondition],
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """Return ``desired`` with times; only a change of ``status`` is a transition."""
    before = {condition.type: condition for condition in previous}
    return tuple(_dated(before.get(item.type), item, generation, now) for item in desired)


def phase_conditions(phase: Phase, reason: AnyReason, message: str) -> tuple[DesiredCondition, ...]:
    """Return Succeeded, Ready, Reconciling and Stalled for a phase."""
    match phase:
        case Phase.SUCCEEDED:
            succeeded, ready, reconciling, stalled = TRUE, TRUE, FALSE, FALSE
        case Phase.FAILED:
            succeeded, ready, reconciling, stalled = FALSE, FALSE, FALSE, TRUE
        case Phase.CANCELLED:
            succeeded, ready, reconciling, stalled = FALSE, TRUE, FALSE, FALSE
        case Phase.PENDING | Phase.CANCELLING:
            succeeded, ready, reconciling, stalled = UNKNOWN, FALSE, TRUE, FALSE
        case Phase.STARTING | Phase.RUNNING | Phase.RETRYING | Phase.SUSPENDED:
            succeeded, ready, reconciling, stalled = UNKNOWN, TRUE, FALSE, FALSE
    return (
        DesiredCondition(ConditionType.SUCCEEDED, succeeded, reason, message),
        DesiredCondition(ConditionType.READY, ready, reason, message),
        DesiredCondition(ConditionType.RECONCILING, reconciling, reason),
        DesiredCondition(
            ConditionType.STALLED, stalled, reason, message if stalled is TRUE else ""
        ),
    )


def _dated(
    before: Condition | None, item: DesiredCondition, generation: int, now: datetime
) -> Condition:
    changed = before is None or before.status is not item.status
    return Condition(
        type=item.type,
        status=item.status,
        reason=item.reason,
        message=item.message,
        last_transition_time=now if changed or before is None else before.last_transition_time,
        observed_generation=generation,
    )
