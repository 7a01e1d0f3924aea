"""The wall-clock limit of a run counts from its first pod on a node: waiting for GPUs is free.

Kubernetes counts ``activeDeadlineSeconds`` from the start of the Job, when its pods may still wait.
So the operator adds the time that they have waited.
"""

import math
from datetime import datetime, timedelta
from typing import Final

from flashrun.api.times import parse_time
from flashrun.plan.pins import JobLimits
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Object

_BLOCK: Final = 6 * 3600
"""While pods wait, the deadline moves on in steps of so many seconds, and is two of them away: the
operator may be away for at least one."""


_CLOCK_STEP: Final = timedelta(seconds=1)
"""Times of Kubernetes are whole seconds."""


def first_start(context: RunContext, job: Object) -> datetime | None:
    """Return when the first pod of ``job`` got its node, since the Job last started; else None."""
    began = started_at(job)
    if began is None:
        return None
    starts = [
        placed
        for pod in context.pods
        if (placed := pod.accepted or pod.started) and pod.created >= began - _CLOCK_STEP
    ]
    starts += [
        attempt.start
        for attempt in context.run.status.attempts
        if attempt.start is not None and attempt.start >= began
    ]
    run_start = context.run.status.start_time
    if run_start is not None and run_start >= began:
        starts.append(run_start)
    return max(began, min(starts)) if starts else None


def started_at(job: Object) -> datetime | None:
    """Return when a Job was started, or last resumed; None before."""
    text = (job.get("status") or {}).get("startTime")
    return parse_time(text) if text else None


def deadline_seconds(context: RunContext, job: Object, limits: JobLimits) -> int:
    """Return the ``activeDeadlineSeconds`` that ``job`` is to have now."""
    left, at_first, began = limits.seconds_left, limits.deadline_seconds, started_at(job)
    current = job["spec"].get("activeDeadlineSeconds")
    if began is None:
        return at_first
    if job["spec"].get("suspend"):
        return max(at_first, current or 0)
    first = first_start(context, job)
    if first is None:
        waited = max(0, int((context.now - began).total_seconds()))
        if waited < at_first - left:
            return at_first
        return left + (waited // _BLOCK + 2) * _BLOCK
    latest = left + math.ceil((first - began).total_seconds())
    if latest <= at_first:
        return at_first
    # When its first pod is gone, the attempts know only later starts.
    return current if current and at_first < current <= latest else latest
