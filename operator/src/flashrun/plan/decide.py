"""``decide``: what one pass has seen of a run → what to do next, and the status to write.

A run that has not ended passes the policies in order, and the first one that applies decides.
Every decision settles: when its effects are observed, the next one does nothing and writes the
same status.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from flashrun.api.platform import Platform
from flashrun.api.reasons import TERMINAL
from flashrun.api.resource import FlashRun
from flashrun.plan.due_times import seconds_to_next_pass
from flashrun.plan.policies.active_job import follow_job
from flashrun.plan.policies.admission import refuse_invalid_spec, wait_for_storage
from flashrun.plan.policies.budget_end import pause_at_budget
from flashrun.plan.policies.cancellation import cancel_run
from flashrun.plan.policies.failed_job import retry_or_fail
from flashrun.plan.policies.held_pods import end_held_pods
from flashrun.plan.policies.job_launch import launch_job
from flashrun.plan.policies.lost_node import give_up_lost_pods
from flashrun.plan.policies.recorded_ending import repeat_ending
from flashrun.plan.policies.renewed_job import renew_job
from flashrun.plan.policies.required_secrets import wait_for_secrets
from flashrun.plan.policies.retention import retain_finished
from flashrun.plan.policies.save_request import pass_on_save_request
from flashrun.plan.policies.suspension import suspend_run
from flashrun.plan.policies.sweep_turn import stop_worse_run, wait_for_turn
from flashrun.plan.policies.trainer_result import finish_run
from flashrun.plan.run_context import RunContext, build_context
from flashrun.plan.status_changes import limit_writes
from flashrun.plan.types import Decision, Observed

Policy = Callable[[RunContext], Decision | None]

POLICIES: Final[tuple[Policy, ...]] = (
    repeat_ending,  # the operator has recorded how the run ended
    finish_run,  # storage has the trainer's result
    cancel_run,
    stop_worse_run,
    refuse_invalid_spec,
    wait_for_storage,
    wait_for_secrets,
    suspend_run,
    pause_at_budget,
    wait_for_turn,
    launch_job,  # from here on the run has a Job
    retry_or_fail,
    renew_job,
    follow_job,  # always decides
)


def decide(run: FlashRun, observed: Observed, platform: Platform, now: datetime) -> Decision:
    """Decide one pass over one run; pure, and total for every run that can be parsed."""
    if run.deleting:
        return Decision(status=run.status)  # owner references delete what belongs to the run
    if run.status.phase in TERMINAL:
        return retain_finished(run, observed, platform, now)
    context = build_context(run, observed, platform, now)
    decision = next(answer for policy in POLICIES if (answer := policy(context)) is not None)
    decision = end_held_pods(context, give_up_lost_pods(context, decision))
    decision = pass_on_save_request(context, limit_writes(run.status, decision, now))
    if not context.active:
        return decision
    due = seconds_to_next_pass(context)
    asked = decision.requeue_seconds
    return replace(decision, requeue_seconds=due if asked is None else min(due, asked))
