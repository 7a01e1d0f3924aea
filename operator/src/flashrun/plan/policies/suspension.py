"""Suspension: ``spec.control.suspend`` pauses a run, and the run keeps its Job."""

from flashrun.api.reasons import Phase, Reason
from flashrun.plan import run_status
from flashrun.plan.kueue_workloads import suspend_patches
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def suspend_run(context: RunContext) -> Decision | None:
    """Suspend the Job of a run that is to pause."""
    if not context.run.spec.control.suspend:
        return None
    status = run_status.with_phase(
        context.status,
        context.run,
        context.now,
        phase=Phase.RUNNING if context.active else Phase.SUSPENDED,
        reason=Reason.SUSPENDING if context.active else Reason.SUSPENDED,
        message="The trainer saves and stops."
        if context.active
        else "Paused by spec.control.suspend: set it to false to continue.",
    )
    patch = suspend_patches(context.job, context.workload_of(context.job))
    return Decision(status=status, patch=patch)
