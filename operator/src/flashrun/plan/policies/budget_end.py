"""Budget: a run that has used its GPU hours saves and pauses, and goes on when it has more."""

from flashrun.api.reasons import TERMINAL, Phase, Reason
from flashrun.api.resource import PendingStatus
from flashrun.plan import budgets, run_status
from flashrun.plan.kueue_workloads import suspend_patches
from flashrun.plan.policies.failed_job import retry_or_fail
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def pause_at_budget(context: RunContext) -> Decision | None:
    """Suspend the Job of a run whose GPU hours are used up.

    A run that has failed for good ends: more hours would not help it.
    """
    if context.pinned is None or not budgets.is_used_up(context.run, context.status, context.now):
        return None
    ended = retry_or_fail(context)
    if ended is not None and ended.status.phase in TERMINAL:
        return None
    message = _used_up(context)
    pending = PendingStatus(reason=Reason.BUDGET_USED_UP, message=message)
    status = run_status.with_phase(
        context.status.replace(pending=pending),
        context.run,
        context.now,
        phase=Phase.RUNNING if context.active else Phase.SUSPENDED,
        reason=Reason.BUDGET_USED_UP,
        message=message,
    )
    patch = suspend_patches(context.job, context.workload_of(context.job))
    return Decision(status=status, patch=patch)


def _used_up(context: RunContext) -> str:
    """Return one sentence about the run's own budget; it stays as it is while the run is paused."""
    hours = context.run.spec.budget.gpu_hours
    assert hours is not None  # it is used up
    budget = budgets.hours_text(hours * 3600)
    if context.active:
        return f"The trainer saves and stops: the run has used its {budget} GPU hours."
    used = budgets.hours_text(budgets.used_seconds(context.status, context.now))
    checkpoints = run_status.checkpoints_text(context.status)
    return (
        f"The run has used {used} of its {budget} GPU hours and is paused; {checkpoints} kept. It "
        "goes on from the newest one when spec.budget.gpuHours is raised (flash budget "
        f"{context.run.name} HOURS)."
    )
