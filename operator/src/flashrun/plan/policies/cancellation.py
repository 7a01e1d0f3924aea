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
    waiting = bool(context.observed.jobs) or context.active
    kept = f"{run_status.checkpoints_text(context.status)} kept"
    if context.status.checkpoints:
        kept += f", the newest is {context.status.checkpoints[0].ref}"
    stored = context.observed.storage.checkpoints
    if stored and stored[-1].evaluation_stopped:
        kept += " (without a score, because its evaluation was stopped)"
    status = run_status.with_phase(
        context.status,
        context.run,
        context.now,
        phase=Phase.CANCELLING if waiting else Phase.CANCELLED,
        reason=Reason.CANCELLING if waiting else Reason.CANCELLED,
        message="The trainer saves and stops." if waiting else f"Cancelled; {kept}.",
    )
    return Decision(status=status, delete=delete_jobs(context.observed.jobs))
