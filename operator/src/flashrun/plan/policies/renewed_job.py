"""Renewed Job: another Job takes the place of one that would wait long, or fail at once.

The Job controller has no other way to forget a back-off, and to forget when a Job first started.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from flashrun.api.reasons import Phase, Reason, Retry
from flashrun.api.resource import AttemptStatus
from flashrun.api.times import format_time, parse_time
from flashrun.plan import back_off, failures, objects, pins
from flashrun.plan.job_start import start_job
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision, Object

DEADLINE_MARGIN: Final = timedelta(minutes=1)
"""How far the clock of the Job controller may be ahead of the operator's."""
LAST_RENEWAL: Final = 900
"""Number of the last Job that takes the place of another one; names have room for 999."""


def renew_job(context: RunContext) -> Decision | None:
    """Continue in another Job when this one was suspended beyond its deadline, or backs off long.

    In a queue the same Job goes on: another one would lose its place.
    """
    job, pinned = context.job, context.run.status.resolved
    if job is None or pinned is None or context.platform.trainer.queue:
        return None
    if any(pod.holds_node for pod in context.pods) or pinned.job >= LAST_RENEWAL:
        return None
    if find_condition(job, "Failed") or find_condition(job, "Complete"):
        return None
    if "deletionTimestamp" in job["metadata"]:
        return None
    limits = pins.job_limits(context.run, context.platform)
    limits = replace(limits, renewals=limits.renewals + 1)
    if job["spec"].get("suspend"):
        if not _deadline_has_passed(context, job):
            return None
        message = "The run continues in another Job, whose wall-clock limit begins anew."
        return _continue(context, job, limits, Reason.RETRYING, message)
    return _skip_back_off(context, job, limits)


def _deadline_has_passed(context: RunContext, job: Object) -> bool:
    """Return whether a suspended Job would fail when it is resumed.

    The Job controller compares the deadline with the time of the first start before it notices that
    the Job was resumed.
    """
    started = (job.get("status") or {}).get("startTime")
    seconds = job["spec"].get("activeDeadlineSeconds")
    if not started or not seconds:
        return False
    deadline = parse_time(started) + timedelta(seconds=seconds)
    return deadline <= context.now + DEADLINE_MARGIN


def _skip_back_off(context: RunContext, job: Object, limits: pins.JobLimits) -> Decision | None:
    """Continue in another Job after an interruption that is not counted.

    An attempt that ended sooner than the back-off lasts waits for it: something may interrupt every
    attempt at once.
    """
    moment, ended = back_off.next_try(context), back_off.ended_attempts(context)
    if moment is None or moment - context.now <= back_off.FIRST:
        return None
    last = max(ended, key=lambda attempt: attempt.end or context.now)
    if not _was_interrupted(context) or _worked(last) < back_off.back_off(len(ended)):
        return None
    started = (job.get("status") or {}).get("startTime")
    used = context.now - parse_time(started) if started else timedelta(0)
    limits = replace(
        limits,
        seconds_before=limits.seconds_before + max(0, int(used.total_seconds())),
        failures_before=limits.failures_before + back_off.counted_failures(ended),
    )
    message = (
        f"{last.reason}: the run continues in another Job, because the Job controller would have "
        f"waited until {format_time(moment)}."
    )
    return _continue(context, job, limits, Reason.RETRYING, message)


def _was_interrupted(context: RunContext) -> bool:
    """Return whether the last attempt ended without any fault of its own."""
    if not context.attempts:
        return False
    return failures.pod_retry(context.attempts[-1].first_failure) is Retry.UNCOUNTED


def _worked(attempt: AttemptStatus) -> timedelta:
    if attempt.start is None or attempt.end is None:
        return timedelta(0)
    return attempt.end - attempt.start


def _continue(
    context: RunContext, job: Object, limits: pins.JobLimits, reason: Reason, message: str
) -> Decision | None:
    resolved, pinned = context.pinned, context.run.status.resolved
    assert resolved is not None  # a run with a Job has pins
    assert pinned is not None
    pool = next((pool for pool in context.platform.pools if pool.name == pinned.pool), None)
    if pool is None:
        return None
    placement = objects.JobPlacement(pinned.job + 1, pool, resolved.scale, pinned.avoid_nodes)
    return start_job(
        context,
        resolved,
        placement,
        reason,
        message,
        phase=Phase.RETRYING,
        retire=job,
        limits=limits,
    )
