"""Cancellation: ``spec.control.cancel`` ends a run; its checkpoints stay in storage."""

from flashrun.api.reasons import Phase, Reason
from flashrun.plan import run_status
from flashrun.plan.decisions import delete_jobs
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def cancel_run(context: RunContext) -> Decision | None:
    """Delete the Jobs of a run that was cancelled; it has ended when its pods have."""
    if not context.run.spec.control.cancel:
        return None
    return end_run(
        context,
        ending=(Phase.CANCELLING, Reason.CANCELLING),
        ended=(Phase.CANCELLED, Reason.CANCELLED),
        sentence="Cancelled;",
    )


def end_run(
    context: RunContext,
    *,
    ending: tuple[Phase, Reason],
    ended: tuple[Phase, Reason],
    sentence: str,
) -> Decision:
    """Delete the Jobs of a run that is to end; ``sentence``, before its checkpoints, says why."""
    waiting = bool(context.observed.jobs) or context.active
    kept = f"{run_status.checkpoints_text(context.status)} kept"
    if context.status.checkpoints:
        kept += f", the newest is {context.status.checkpoints[0].ref}"
    stored = context.observed.storage.checkpoints
    if stored and stored[-1].evaluation_stopped:
        kept += " (without a score, because its evaluation was stopped)"
    phase, reason = ending if waiting else ended
    status = run_status.with_phase(
        context.status,
        context.run,
        context.now,
        phase=phase,
        reason=reason,
        message="The trainer saves and stops." if waiting else f"{sentence} {kept}.",
    )
    return Decision(status=status, delete=delete_jobs(context.observed.jobs))
