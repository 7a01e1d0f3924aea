"""Retention: a finished run stays as it is, and what it no longer needs goes away."""

from datetime import datetime, timedelta
from typing import Final

from flashrun.api import names
from flashrun.api.platform import Platform
from flashrun.api.resource import FlashRun
from flashrun.plan import run_status
from flashrun.plan.decisions import delete_jobs, unfinished_jobs
from flashrun.plan.pods import Pod, current_pods, read_pods
from flashrun.plan.types import Decision, Observed, Patch

PATIENCE: Final = timedelta(seconds=5)
"""How long the Job controller may take to end the Job of a pod that has failed.

It starts no other pod within ten seconds.
"""


def retain_finished(
    run: FlashRun, observed: Observed, platform: Platform, now: datetime
) -> Decision:
    """Keep a finished run's status, whatever happens to its Job; let Job and heartbeat expire.

    A Job of it that still has pods, or is about to start another one, does not go on.
    """
    seconds = platform.retention.finished_job_seconds
    expiring = tuple(
        Patch("Job", job["metadata"]["name"], {"spec": {"ttlSecondsAfterFinished": seconds}})
        for job in observed.jobs
        if "ttlSecondsAfterFinished" not in job["spec"]
    )
    stale = (names.heartbeat_key(run.uid),) if observed.storage.heartbeat is not None else ()
    pods = read_pods(observed.pods)
    ended = run.status.completion_time or now
    settling = PATIENCE - (now - ended) if _has_failed(pods) else None
    unfinished = delete_jobs(unfinished_jobs(observed.jobs))
    goes_on = any(pod.holds_node for pod in pods) or (
        settling is not None and settling <= timedelta(0)
    )
    status = run_status.with_attempts(run.status, observed, pods, now)
    return Decision(
        status=status.replace(observed_generation=run.generation),
        patch=expiring,
        delete=unfinished if goes_on else (),
        delete_keys=stale,
        requeue_seconds=settling.total_seconds()
        if unfinished and settling is not None and not goes_on
        else None,
    )


def _has_failed(pods: tuple[Pod, ...]) -> bool:
    """Return whether one of the last pods failed, so that the Job may start another one.

    A container that another program added can fail a pod whose trainer succeeded.
    """
    return any(pod.phase == "Failed" for pod in current_pods(pods)) if pods else False
