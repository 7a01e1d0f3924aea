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
    return max(began, min(starts)) if starts else None


def started_at(job: Object) -> datetime | None:
    """Return when a Job was started, or last resumed; None before."""
    text = (job.get("status") or {}).get("startTime")
    return parse_time(text) if text else None


def deadline_seconds(context: RunContext, job: Object, limits: JobLimits) -> int:
    """Return the ``activeDeadlineSeconds`` that ``job`` is to have now."""
    left, began = limits.seconds_left, started_at(job)
    current = job["spec"].get("activeDeadlineSeconds")
    if began is None:
        return left
    if job["spec"].get("suspend"):
        return max(left, current or 0)
    first = first_start(context, job)
    if first is None:
        waited = max(0, int((context.now - began).total_seconds()))
        return left + (waited // _BLOCK + 2) * _BLOCK
    latest = left + math.ceil((first - began).total_seconds())
    # When its first pod is gone, the attempts know only later starts.
    return current if current and left < current <= latest else latest
