"""Status of a run that a pass cannot act on: something ended it, or the spec is unreadable."""

from collections.abc import Iterable
from datetime import datetime

from flashrun.api.bounds import STATUS_TEXT_LIMIT, clean_text
from flashrun.api.reasons import TERMINAL, ConditionType, Phase, Reason
from flashrun.api.resource import FlashRun, FlashRunStatus, PendingStatus
from flashrun.api.times import format_time, whole_seconds
from flashrun.plan import conditions, run_status
from flashrun.plan.conditions import FALSE, TRUE, DesiredCondition
from flashrun.plan.types import Object


def blocked_status(run: FlashRun, reason: Reason, message: str, now: datetime) -> FlashRunStatus:
    """Return the status of a run over which a pass ended early: why, in one sentence.

    The phase stays, as the next pass tries again.
    """
    message = clean_text(message[:STATUS_TEXT_LIMIT])
    return run_status.with_phase(
        run.status.replace(
            observed_generation=run.generation,
            pending=PendingStatus(reason=reason, message=message),
        ),
        run,
        now,
        phase=run.status.phase,
        reason=reason,
        message=message,
    )


def no_longer_served(run: FlashRun, now: datetime) -> FlashRunStatus:
    """Return the status of a run that goes on in a namespace that the operator has left."""
    message = (
        f"The operator does not serve namespace {run.namespace} any more: nothing is started, "
        "retried or stopped here. Pods that run go on until their storage credentials expire"
    )
    ends = run.status.storage_access_expires
    message += f" at {format_time(ends)}." if ends is not None else "."
    return blocked_status(run, Reason.NAMESPACE_NOT_SERVED, message, now)


def unrecorded_ending(run: FlashRun, message: str, now: datetime) -> FlashRunStatus:
    """Return the status of a run that has ended, while storage does not take the record of it.

    The phase stays: a run ends when storage knows it.
    """
    message = f"The end of the run cannot be recorded: {message}"
    return blocked_status(run, Reason.STORAGE_UNAVAILABLE, message, now)


def unnoted(run: FlashRun, message: str, now: datetime) -> FlashRunStatus:
    """Return the status of a run that cannot begin, while storage takes no note of it."""
    message = f"Storage cannot be written: {message}"
    return blocked_status(run, Reason.STORAGE_UNAVAILABLE, message, now)


def unissued_access(run: FlashRun, message: str, now: datetime) -> FlashRunStatus:
    """Return the status of a run whose pods cannot start, because storage gives no credentials."""
    message = f"Storage does not issue credentials for the run: {message}"
    status = blocked_status(run, Reason.STORAGE_UNAVAILABLE, message, now)
    return run_status.with_conditions(status, run, now, _without_access(message))


def with_old_access(
    status: FlashRunStatus, run: FlashRun, message: str, now: datetime
) -> FlashRunStatus:
    """Return ``status`` of a run whose credentials are due, and were not renewed in this pass.

    They work until they expire; each pass tries again.
    """
    ends = run.status.storage_access_expires
    until = f"; the present ones expire at {format_time(ends)}" if ends is not None else ""
    message = f"The storage credentials cannot be renewed{until}: {message}"
    return run_status.with_conditions(status, run, now, _without_access(message))


def _without_access(message: str) -> DesiredCondition:
    reason = Reason.STORAGE_UNAVAILABLE
    return DesiredCondition(ConditionType.STORAGE_ACCESS, FALSE, reason, message)


def unreadable_spec(manifest: Object, problems: Iterable[str], now: datetime) -> Object | None:
    """Return what to write to the status of a run whose spec this operator cannot read.

    It is too large, or was written for another version. A phase stays as it is. None: the
    status says so already, or the run has ended.
    """
    phase = str((manifest.get("status") or {}).get("phase") or Phase.PENDING)
    if phase in TERMINAL:
        return None
    message = f"This operator cannot read the spec: {'; '.join(problems)}"
    generation = manifest["metadata"].get("generation", 1)
    desired = (
        DesiredCondition(ConditionType.ACCEPTED, FALSE, Reason.SPEC_UNREADABLE, message),
        DesiredCondition(ConditionType.READY, FALSE, Reason.SPEC_UNREADABLE, message),
        DesiredCondition(ConditionType.STALLED, TRUE, Reason.SPEC_UNREADABLE, message),
    )
    dated = conditions.with_times((), desired, generation, whole_seconds(now))
    written = (manifest.get("status") or {}).get("conditions") or []
    # As they are written: a long sentence is cut.
    if {item.get("message", "") for item in written} == {item.message for item in dated}:
        return None
    status = FlashRunStatus(
        observed_generation=generation,
        conditions=dated,
        pending=PendingStatus(reason=Reason.SPEC_UNREADABLE, message=message),
    )
    return {"phase": phase, **status.model_dump(mode="json", by_alias=True, exclude_unset=True)}
