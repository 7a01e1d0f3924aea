"""Conditions after the Kubernetes API conventions, readable by kstatus.

``Ready``, ``Reconciling`` and ``Stalled`` follow kstatus, so that ``kubectl wait``, Argo CD and
Flux judge a run without knowing it: a queued or running run is Ready (it is as it should be),
a failed one is Stalled.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from flashrun.api.reasons import AnyReason, ConditionType
from flashrun.api.resource import Condition, ConditionStatus, Phase

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True)
class Wanted:
    """A condition as a decision states it, without times."""

    type: ConditionType
    status: ConditionStatus
    reason: AnyReason
    message: str = ""


def merge(
    previous: Iterable[Condition], wanted: Iterable[Wanted], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return ``wanted`` with times: a transition is a change of status, nothing else."""
    before = {condition.type: condition for condition in previous}
    return tuple(_dated(before.get(item.type), item, generation, now) for item in wanted)


def summary(phase: Phase, reason: AnyReason, message: str) -> tuple[Wanted, ...]:
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
        Wanted(ConditionType.SUCCEEDED, succeeded, reason, message),
        Wanted(ConditionType.READY, ready, reason, message),
        Wanted(ConditionType.RECONCILING, reconciling, reason),
        Wanted(ConditionType.STALLED, stalled, reason, message if stalled is TRUE else ""),
    )


def _dated(before: Condition | None, item: Wanted, generation: int, now: datetime) -> Condition:
    changed = before is None or before.status is not item.status
    return Condition(
        type=item.type,
        status=item.status,
        reason=item.reason,
        message=item.message[:2048],
        last_transition_time=now if changed or before is None else before.last_transition_time,
        observed_generation=generation,
    )
