"""Renewed Job: another Job takes the place of one that would wait long, or fail at once.

The Job controller has no other way to forget a back-off, to forget when a Job first started, and to
let its pods go to a node that they avoid.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from flashrun.api.reasons import Phase, Reason, Retry
from flashrun.api.resource import AttemptStatus
from flashrun.api.times import format_time, parse_time
from flashrun.plan import back_off, failures, objects, pins
from flashrun.plan.job_start import limits_after, start_job
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.kueue_workloads import queue_of
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision, Object

DEADLINE_MARGIN: Final = timedelta(minutes=1)
"""How far the clock of the Job controller may be ahead of the operator's."""
NO_OTHER_NODE: Final = timedelta(minutes=10)
"""How long pods that avoid nodes wait for another node; an autoscaler may add one."""
LAST_RENEWAL: Final = 900
"""Number of the last Job that takes the place of another one; names have room for 999."""


def renew_job(context: RunContext) -> Decision | None:
    """Continue in another Job when this one was suspended beyond its deadline, backs off long, or
    has no node but those that it avoids.

    After an interruption, the same Job goes on in a queue of Kueue: another one would lose its
    place. Kueue clears the start of a Job that it stops, so that its deadline does not pass.
    """
    job, pinned = context.job, context.run.status.resolved
    if job is None or pinned is None or pinned.job >= LAST_RENEWAL:
        return None
    if find_condition(job, "Failed") or find_condition(job, "Complete"):
        return None
    if "deletionTimestamp" in job["metadata"]:
        return None
    limits = pins.job_limits(context.run, context.platform)
    limits = replace(limits, renewals=limits.renewals + 1)
    returned = _return_to_avoided_nodes(context, job, limits)
    if returned is not None:
        return returned
    if any(pod.holds_node for pod in context.pods):
        return None
    if job["spec"].get("suspend"):
        if not _deadline_has_passed(context, job):
            return None
        message = "The run continues in another Job, whose wall-clock limit begins anew."
        return _continue(context, job, limits, Reason.RETRYING, message)
    return None if queue_of(job) else _skip_back_off(context, job, limits)


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
    limits = replace(limits_after(context, job), renewals=limits.renewals)
    message = (
        f"{last.reason}: the run continues in another Job, because the Job controller would have "
        f"waited until {format_time(moment)}."
    )
    return _continue(context, job, limits, Reason.RETRYING, message)


def _return_to_avoided_nodes(
    context: RunContext, job: Object, limits: pins.JobLimits
) -> Decision | None:
    """Continue in a Job that avoids no node when no other node takes a pod."""
    pinned = context.run.status.resolved
    held = [pod for pod in context.current_pods if pod.holds_node]
    if pinned is None or not pinned.avoid_nodes or job["spec"].get("suspend"):
        return None
    if not held or any(pod.started is not None or not pod.unschedulable for pod in held):
        return None
    since = max(pod.created for pod in held)
    if context.now - since < NO_OTHER_NODE:
        return None
    minutes = int(NO_OTHER_NODE.total_seconds()) // 60
    message = (
        f"No other node took the run within {minutes} minutes: it continues in another Job, which "
        f"may run on {', '.join(pinned.avoid_nodes)} again."
    )
    limits = replace(limits_after(context, job, since), renewals=limits.renewals)
    return _continue(context, job, limits, Reason.RETRYING, message, avoid_nodes=())


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
    context: RunContext,
    job: Object,
    limits: pins.JobLimits,
    reason: Reason,
    message: str,
    *,
    avoid_nodes: tuple[str, ...] | None = None,
) -> Decision | None:
    """Start the next Job; it avoids the same nodes by default."""
    resolved, pinned = context.pinned, context.run.status.resolved
    assert resolved is not None  # a run with a Job has pins
    assert pinned is not None
    pool = next((pool for pool in context.platform.pools if pool.name == pinned.pool), None)
    if pool is None:
        return None
    avoided = pinned.avoid_nodes if avoid_nodes is None else avoid_nodes
    placement = objects.JobPlacement(pinned.job + 1, pool, resolved.scale, avoided)
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
