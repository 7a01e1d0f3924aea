"""The decisions that several policies reach: the run failed, or the run has to wait."""

from collections.abc import Iterable
from typing import Final

from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.resource import FailureStatus, PendingStatus
from flashrun.api.sentences import join_sentences
from flashrun.plan import run_status
from flashrun.plan.conditions import FALSE, DesiredCondition
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision, Delete, Object

RECHECK_SECONDS: Final = 10.0
"""Time to the next pass when the run waits for something that the operator does not watch."""


def fail_run(context: RunContext, failure: FailureStatus, *, delete_jobs: bool = False) -> Decision:
    """End the run as failed because of ``failure``; ``delete_jobs`` stops pods that still run."""
    jobs = tuple(Delete("Job", job["metadata"]["name"]) for job in context.observed.jobs)
    status = context.status.replace(failure=failure)
    return Decision(
        status=run_status.with_phase(
            status,
            context.run,
            context.now,
            phase=Phase.FAILED,
            reason=failure.reason,
            message=join_sentences(failure.message, failure.hint),
        ),
        delete=jobs if delete_jobs else (),
    )


def delete_jobs(jobs: Iterable[Object]) -> tuple[Delete, ...]:
    """Return the deletion of each Job that is not being deleted already."""
    return tuple(
        Delete("Job", job["metadata"]["name"])
        for job in jobs
        if "deletionTimestamp" not in job["metadata"]
    )


def unfinished_jobs(jobs: Iterable[Object]) -> tuple[Object, ...]:
    """Return the Jobs that may still start pods: neither complete nor failed."""
    return tuple(
        job
        for job in jobs
        if find_condition(job, "Complete") is None and find_condition(job, "Failed") is None
    )


def wait(context: RunContext, reason: Reason, message: str, condition: ConditionType) -> Decision:
    """Let the run wait; say for what, in ``pending`` and in the condition that is not met."""
    pending = PendingStatus(reason=reason, message=message)
    status = run_status.with_phase(
        context.status.replace(pending=pending),
        context.run,
        context.now,
        phase=Phase.PENDING,
        reason=reason,
        message=message,
    )
    unmet = DesiredCondition(condition, FALSE, reason, message)
    return Decision(
        status=run_status.with_conditions(status, context.run, context.now, unmet),
        requeue_seconds=RECHECK_SECONDS,
    )
