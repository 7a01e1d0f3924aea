"""The back-off of the Job controller: when it creates the next pod of a Job.

It waits 10, 20, 40 … 600 seconds after each pod of a Job that failed in a row, also after failures
that a rule of ``podFailurePolicy`` ignores. Neither long work in between nor suspension sets it
back; only another Job begins anew. (Kubernetes 1.34, ``pkg/controller/job/backoff_utils.go``.)
"""

from datetime import datetime, timedelta
from typing import Final

from flashrun.api import names
from flashrun.api.reasons import Reason, Retry
from flashrun.api.resource import AttemptStatus
from flashrun.plan.run_context import RunContext

FIRST: Final = timedelta(seconds=10)
LONGEST: Final = timedelta(minutes=10)


def back_off(failures: int) -> timedelta:
    """Return the wait after the last of ``failures`` failed pods of a Job."""
    if failures < 1:
        return timedelta(0)
    return min(LONGEST, FIRST * 2.0 ** min(failures - 1, 20))


def next_try(context: RunContext) -> datetime | None:
    """Return when the Job controller creates the next pod; None when it does not wait.

    A restart of the controllers forgets the back-off: the pod may come earlier.
    """
    ended = ended_attempts(context)
    ends = [attempt.end for attempt in ended if attempt.end is not None]
    if not ends or any(pod.holds_node for pod in context.current_pods):
        return None
    moment = max(ends) + back_off(len(ended))
    return moment if moment > context.now else None


def ended_attempts(context: RunContext) -> tuple[AttemptStatus, ...]:
    """Return the attempts of the newest Job that have ended, the oldest first."""
    pinned = context.run.status.resolved
    number = pinned.job if pinned is not None else 0
    present = {pod.name: pod.job for pod in context.pods}
    return tuple(
        attempt
        for attempt in context.status.attempts
        if attempt.reason and present.get(attempt.pod, _job_number(context, attempt.pod)) == number
    )


def counted_failures(attempts: tuple[AttemptStatus, ...]) -> int:
    """Return how many of ``attempts`` count against the number of retries."""
    return sum(
        isinstance(attempt.reason, Reason) and attempt.reason.retry is Retry.COUNTED
        for attempt in attempts
    )


def _job_number(context: RunContext, pod: str) -> int | None:
    """Return the number of the Job whose pod has this name: the Job's, and one or two suffixes."""
    run, parts = context.run, pod.split("-")
    candidates = ("-".join(parts[:-1]), "-".join(parts[:-2]))
    found = (names.parse_job_number(run.name, run.uid, job) for job in candidates)
    return next((number for number in found if number is not None), None)
