"""Trainer result: the record in storage with which a trainer ends decides how the run ended."""

from datetime import timedelta

from flashrun.api.exits import Exit
from flashrun.api.reasons import Phase, Reason
from flashrun.api.times import whole_seconds
from flashrun.plan import failures, run_status
from flashrun.plan.decisions import RECHECK_SECONDS, delete_jobs, fail_run
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def finish_run(context: RunContext) -> Decision | None:
    """Believe the trainer's result when its pods have ended, and for a success also the adapter."""
    result = context.observed.storage.result
    if result is None:
        return None
    if context.active:
        return _wait_for_pods(context)
    if result.exit_code != Exit.DONE:
        return fail_run(context, failures.result_failure(result))
    if context.observed.storage.adapter is None:
        return None
    checkpoints = run_status.checkpoints_text(context.status)
    return Decision(
        status=run_status.with_phase(
            context.status,
            context.run,
            context.now,
            phase=Phase.SUCCEEDED,
            reason=Reason.TRAINED,
            message=f"Trained; adapter {context.run.name} and {checkpoints} are in storage.",
        )
    )


def _wait_for_pods(context: RunContext) -> Decision | None:
    """Wait until the pods have ended, and end them when that takes longer than a last upload may.

    The result is written by the pod, and says nothing about what the pod does afterwards.
    """
    run, now = context.run, context.now
    if run.spec.control.cancel or run.spec.control.suspend:
        return None  # those policies end the pods at once
    since = run.status.result_time or whole_seconds(now)
    left = since + timedelta(seconds=context.platform.trainer.upload_timeout_seconds) - now
    overdue = left <= timedelta(0)
    status = run_status.with_phase(
        context.status.replace(result_time=since),
        run,
        now,
        phase=Phase.RUNNING,
        reason=Reason.FINISHING,
        message="The result is in storage; the run ends when its pods have ended.",
    )
    return Decision(
        status=status,
        delete=delete_jobs(context.observed.jobs) if overdue else (),
        requeue_seconds=RECHECK_SECONDS if overdue else max(1.0, left.total_seconds()),
    )
