"""Kueue's Workload of a Job: what it says about a Job that waits, and how the Job is stopped.

Kueue suspends a Job until there is quota for it, and lets a suspended Job go on whenever its
Workload is admitted. So a Job in a queue is stopped by its Workload (``spec.active``): suspending
the Job alone would be undone. https://kueue.sigs.k8s.io/docs/concepts/workload/
"""

from dataclasses import dataclass
from typing import Any, Final

from flashrun.api import names
from flashrun.api.bounds import clean_text
from flashrun.api.reasons import KubernetesReason
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.types import Object, Patch, QueuedWorkload

_SENTENCE_LIMIT: Final = 1024
_JOB_CONTROLLER: Final = "kubernetes.io/job-controller"
_PENDING_CHECKS: Final = ("Pending", "Retry", "Rejected")


@dataclass(frozen=True)
class _Explanation:
    """Why a Workload is where it is."""

    reason: str
    message: str


def queue_of(job: Object) -> str:
    """Return the LocalQueue in which a Job waits; empty without one."""
    return str((job["metadata"].get("labels") or {}).get(names.QUEUE_LABEL, ""))


def other_manager(job: Object) -> str:
    """Return the name of the program that runs a Job instead of this cluster's controller."""
    manager = str(job["spec"].get("managedBy") or _JOB_CONTROLLER)
    return "" if manager == _JOB_CONTROLLER else manager


def suspend_patches(job: Object | None, queued: QueuedWorkload | None) -> tuple[Patch, ...]:
    """Return the patches that suspend a Job: first its Workload, or Kueue would let it go on."""
    if job is None:
        return ()
    workload = () if queued is None or not is_active(queued.workload) else (_activation(queued),)
    return (*workload, *_job_patch(job, True))


def resume_patches(job: Object, queued: QueuedWorkload | None) -> tuple[Patch, ...]:
    """Return the patches that let a suspended Job go on; in a queue, as soon as there is quota.

    A Workload that somebody else has deactivated stays as it is.
    """
    if not queue_of(job):
        return _job_patch(job, False)
    if queued is None or is_active(queued.workload) or not _is_ours(queued.workload):
        return ()
    return (_activation(queued, active=True),)


def is_active(workload: Object) -> bool:
    """Return whether Kueue may admit a Workload."""
    return (workload.get("spec") or {}).get("active") is not False


def waiting_sentence(job: Object, queued: QueuedWorkload | None) -> str:
    """Return one sentence about why Kueue has not started a Job, in Kueue's own words."""
    queue = queue_of(job)
    if not queue:
        return "The Job is suspended."
    if queued is None:
        return f"The Job waits for LocalQueue {queue}; Kueue has not created its Workload yet."
    workload, name = queued.workload, queued.workload["metadata"]["name"]
    evicted = _explanation(workload, KubernetesReason.EVICTED)
    if not is_active(workload) and not _is_ours(workload):
        why = f" ({evicted.message})" if evicted and evicted.message else ""
        return (
            f"Workload {name} was deactivated{why}: set its spec.active to true to queue the run "
            "again."
        )
    before = f"Kueue stopped the run ({evicted.reason}). " if evicted else ""
    if find_condition(workload, "QuotaReserved") is not None:
        checks = "; ".join(_pending_checks(workload)) or "its admission checks"
        return f"{before}LocalQueue {queue} has quota for the Job, which waits for {checks}."
    place = f"is number {queued.position}" if queued.position is not None else "waits"
    unmet = _explanation(workload, "QuotaReserved", "False")
    words = (unmet or evicted or _Explanation("", "")).message
    return f"{before}The Job {place} in LocalQueue {queue}" + (f": {words}" if words else ".")


def stopping_sentence(queued: QueuedWorkload | None) -> str:
    """Return one sentence about a Job that Kueue stops while its pods still run."""
    evicted = None if queued is None else _explanation(queued.workload, KubernetesReason.EVICTED)
    words = f" ({evicted.reason}: {evicted.message})" if evicted else ""
    return f"Kueue stops the run{words}: the trainer saves and stops."


def _job_patch(job: Object, suspend: bool) -> tuple[Patch, ...]:
    """Return the patch of a Job's ``spec.suspend``; none where it has this value."""
    if bool(job["spec"].get("suspend")) is suspend:
        return ()
    return (Patch("Job", job["metadata"]["name"], {"spec": {"suspend": suspend}}),)


def _activation(queued: QueuedWorkload, *, active: bool = False) -> Patch:
    mark = None if active else "true"
    body = {
        "metadata": {"annotations": {names.SUSPENDED_ANNOTATION: mark}},
        "spec": {"active": active},
    }
    return Patch("Workload", queued.workload["metadata"]["name"], body)


def _is_ours(workload: Object) -> bool:
    """Return whether the operator itself has deactivated a Workload."""
    return names.SUSPENDED_ANNOTATION in (workload["metadata"].get("annotations") or {})


def _explanation(workload: Object, kind: str, status: str = "True") -> _Explanation | None:
    condition = find_condition(workload, kind, status)
    if condition is None:
        return None
    return _Explanation(_clean(condition.get("reason"))[:64], _clean(condition.get("message")))


def _pending_checks(workload: Object) -> list[str]:
    checks = (workload.get("status") or {}).get("admissionChecks") or []
    return [
        f"{_clean(check.get('name'))}: {_clean(check.get('message')) or check['state']}"
        for check in checks
        if check.get("state") in _PENDING_CHECKS
    ]


def _clean(text: Any) -> str:
    return clean_text(str(text or "")[:_SENTENCE_LIMIT])
