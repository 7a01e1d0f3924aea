"""Retention: a finished run stays as it is, and what it no longer needs goes away."""

from datetime import datetime

from flashrun.api import names
from flashrun.api.platform import Platform
from flashrun.api.resource import FlashRun
from flashrun.plan import run_status
from flashrun.plan.decisions import delete_jobs, unfinished_jobs
from flashrun.plan.pods import read_pods
from flashrun.plan.types import Decision, Observed, Patch


def retain_finished(
    run: FlashRun, observed: Observed, platform: Platform, now: datetime
) -> Decision:
    """Keep a finished run's status, whatever happens to its Job; let Job and heartbeat expire.

    A Job of it that still has pods does not go on.
    """
    seconds = platform.retention.finished_job_seconds
    expiring = tuple(
        Patch("Job", job["metadata"]["name"], {"spec": {"ttlSecondsAfterFinished": seconds}})
        for job in observed.jobs
        if "ttlSecondsAfterFinished" not in job["spec"]
    )
    stale = (names.heartbeat_key(run.uid),) if observed.storage.heartbeat is not None else ()
    pods = read_pods(observed.pods)
    active = any(pod.active for pod in pods)
    status = run_status.with_attempts(run.status, observed, pods, now)
    return Decision(
        status=status.replace(observed_generation=run.generation),
        patch=expiring,
        delete=delete_jobs(unfinished_jobs(observed.jobs)) if active else (),
        delete_keys=stale,
    )
