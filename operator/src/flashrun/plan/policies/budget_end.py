"""End of a budget: runs save and pause when their GPU hours, or those of the namespace, end."""

from dataclasses import replace

from flashrun.api.reasons import TERMINAL, ConditionType, Phase, Reason
from flashrun.api.resource import PendingStatus
from flashrun.plan import budgets, run_status
from flashrun.plan.decisions import wait
from flashrun.plan.kueue_workloads import suspend_patches
from flashrun.plan.policies.failed_job import retry_or_fail
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def pause_at_budget(context: RunContext) -> Decision | None:
    """Suspend the Job of a run whose GPU hours are used up; let one that has none wait.

    A run that has failed for good ends: more hours would not help it.
    """
    if context.pinned is None:
        return _wait_for_namespace(context)
    if budgets.is_used_up(context.run, context.status, context.now):
        reason, message, again = Reason.BUDGET_USED_UP, _run_sentence(context), None
    elif (shared := context.observed.namespace_budget) is not None and shared.is_used_up:
        reason, message = Reason.NAMESPACE_BUDGET_USED_UP, _namespace_sentence(context, shared)
        again = budgets.LOOK_SECONDS
    else:
        return None
    ended = retry_or_fail(context)
    if ended is not None and ended.status.phase in TERMINAL:
        return None
    pending = PendingStatus(reason=reason, message=message)
    status = run_status.with_phase(
        context.status.replace(pending=pending),
        context.run,
        context.now,
        phase=Phase.RUNNING if context.active else Phase.SUSPENDED,
        reason=reason,
        message=message,
    )
    patch = suspend_patches(context.job, context.workload_of(context.job))
    return Decision(status=status, patch=patch, requeue_seconds=again)


def _wait_for_namespace(context: RunContext) -> Decision | None:
    """Let a run wait that has not begun while its namespace has no GPU hours left."""
    shared = context.observed.namespace_budget
    if shared is None:
        return None
    if shared.problem:
        reason = Reason.STORAGE_UNAVAILABLE
        return wait(context, reason, shared.problem, ConditionType.ACCEPTED)
    if not shared.is_used_up:
        return None
    message = _namespace_sentence(context, shared)
    decision = wait(context, Reason.NAMESPACE_BUDGET_USED_UP, message, ConditionType.ACCEPTED)
    return replace(decision, requeue_seconds=budgets.LOOK_SECONDS)


def _namespace_sentence(context: RunContext, shared: budgets.NamespaceBudget) -> str:
    """Return one sentence that stays as it is until the next month."""
    namespace, hours = context.run.namespace, budgets.hours_text(shared.hours * 3600)
    return (
        f"The runs of namespace {namespace} have used its {hours} GPU hours of this month: they "
        f"wait until {shared.renewed:%Y-%m-%d}, or until the platform's administrator raises "
        f"budgets.{namespace}."
    )


def _run_sentence(context: RunContext) -> str:
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
