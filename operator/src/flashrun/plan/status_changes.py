"""From one status to the next: when a change is written, and which Events report it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from flashrun.api.reasons import ConditionType, Phase, Reason, reason_from
from flashrun.api.resource import FlashRunStatus
from flashrun.plan.types import Decision, RunEvent

PROGRESS_INTERVAL: Final = timedelta(seconds=5)
"""Shortest time between two writes of progress alone; storage has every step."""
_WRITTEN_AT_ONCE: Final = tuple(FlashRunStatus.model_fields.keys() - {"progress", "gpu_seconds"})
"""The fields of a status whose changes do not wait; any other is progress alone."""


def limit_writes(before: FlashRunStatus, decision: Decision, now: datetime) -> Decision:
    """Return ``decision`` with the stored status where only progress has changed, too soon.

    The decision then asks for a pass when progress may be written. Events report what changes.
    """
    status, wait = decision.status, None
    equal = _equal_but_progress(before, status)
    if equal and before.progress != status.progress:
        written = before.progress.updated_time if before.progress else None
        if written is not None and timedelta(0) <= (age := now - written) < PROGRESS_INTERVAL:
            status = before
            wait = (PROGRESS_INTERVAL - age).total_seconds()
    elif equal:
        status = before
    requeue = wait if decision.requeue_seconds is None else decision.requeue_seconds
    return replace(
        decision, status=status, requeue_seconds=requeue, events=tuple(_events(before, status))
    )


def _equal_but_progress(before: FlashRunStatus, after: FlashRunStatus) -> bool:
    return all(getattr(before, name) == getattr(after, name) for name in _WRITTEN_AT_ONCE)


def _events(before: FlashRunStatus, after: FlashRunStatus) -> Iterator[RunEvent]:
    """Yield an Event for each change that people follow: phase, checkpoints, ended attempts."""
    ready = after.condition(ConditionType.READY)
    reason, message = (ready.reason, ready.message) if ready else (reason_from(after.phase), "")
    if after.phase is not before.phase or (after.pending and after.pending != before.pending):
        yield RunEvent(
            reason or reason_from(after.phase), message or after.phase, warning=_is_warning(after)
        )
    elif reason is Reason.TRAINING_WARNING and ready != before.condition(ConditionType.READY):
        yield RunEvent(reason, message, warning=True)
    for checkpoint in after.checkpoints[: max(0, after.checkpoint_count - before.checkpoint_count)]:
        yield RunEvent(Reason.CHECKPOINT_UPLOADED, f"Checkpoint {checkpoint.ref} is in storage.")
    known = {attempt.pod: attempt for attempt in before.attempts}
    for attempt in after.attempts:
        was = known.get(attempt.pod)
        if attempt.end is not None and (was is None or was.end is None) and attempt.exit_code:
            text = f"Pod {attempt.pod} ended: {attempt.reason}. {attempt.message}".rstrip()
            yield RunEvent(Reason.ATTEMPT_ENDED, text, warning=True)


def _is_warning(status: FlashRunStatus) -> bool:
    """Return whether a person may have to do something."""
    return status.phase is Phase.FAILED or status.pending is not None
