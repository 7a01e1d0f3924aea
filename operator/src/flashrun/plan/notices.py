"""What other programs say in Events about a Job or a pod that waits.

The status of a Job does not say why it has no pod, nor that of a pod what a volume or the cluster's
autoscaler waits for.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from flashrun.api.bounds import STATUS_TEXT_LIMIT, clean_text
from flashrun.api.reasons import Activity, KubernetesReason
from flashrun.api.resource import FlashRun
from flashrun.api.times import parse_time
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.pods import Pod
from flashrun.plan.types import Notice, Object

FAILED_CREATE: Final = "FailedCreate"
"""Reason of an Event: the API server refused a pod of the Job."""
_CREATING: Final = "Error creating: "
_SCHEDULER: Final = "default-scheduler"
_REASON_LIMIT: Final = 64
EPOCH: Final = datetime.fromtimestamp(0, UTC)


def waiting_objects(run: FlashRun, jobs: Iterable[Object], pods: tuple[Pod, ...]) -> Iterator[str]:
    """Yield the uids of the Job and of the pods of a run whose Events may say why it waits."""
    pinned = run.status.resolved
    if pinned is None:
        return
    held = [pod for pod in pods if pod.holds_node]
    for job in jobs:
        uid = job["metadata"].get("uid", "")
        ended = find_condition(job, "Complete") or find_condition(job, "Failed")
        asks = len(held) < pinned.nodes and not job["spec"].get("suspend")
        if uid == pinned.job_uid and asks and ended is None:
            yield uid
    yield from (pod.uid for pod in held if pod.started is None and pod.activity is None)


def read_notices(events: Iterable[Object]) -> tuple[Notice, ...]:
    """Return what Events say, the newest first."""
    notices = map(_read_notice, events)
    return tuple(sorted(notices, key=lambda notice: notice.time, reverse=True))


def refused_pod(notices: tuple[Notice, ...], pods: tuple[Pod, ...]) -> str:
    """Return the API server's sentence about a pod of a Job that it refused, or an empty string.

    A refusal from before the newest pod was created has been overcome.
    """
    since = max((pod.created for pod in pods), default=EPOCH)
    refusals = (
        notice.message.removeprefix(_CREATING)
        for notice in notices
        if notice.reason == FAILED_CREATE and notice.time > since
    )
    return next(refusals, "")


def newest_warning(notices: tuple[Notice, ...]) -> Notice | None:
    """Return the newest warning about a pod that is on a node and has not started."""
    return next((notice for notice in notices if notice.warning), None)


def pod_activity(pod: Pod, notices: Mapping[str, tuple[Notice, ...]]) -> Activity | None:
    """Return what a pod does; while none of our containers runs, its node may pull the image."""
    if pod.activity is None and pod.started is None and _pulls_image(notices.get(pod.uid, ())):
        return Activity.PULLING_IMAGE
    return pod.activity


def _pulls_image(notices: tuple[Notice, ...]) -> bool:
    """Return whether a pull has begun after the last one ended and after the last warning."""
    begun = (notice.time for notice in notices if notice.reason == KubernetesReason.PULLING)
    others = (
        notice.time
        for notice in notices
        if notice.reason == KubernetesReason.PULLED or notice.warning
    )
    return max(begun, default=EPOCH) > max(others, default=EPOCH)


def autoscaler_sentence(notices: tuple[Notice, ...]) -> str:
    """Return what a program other than the scheduler says of a pod without a node, or nothing."""
    said = (
        f"{notice.source}: {notice.message}" for notice in notices if notice.source != _SCHEDULER
    )
    return next(said, "")


def _read_notice(event: Object) -> Notice:
    reason = str(event.get("reason") or "")
    source = (event.get("source") or {}).get("component") or event.get("reportingComponent")
    return Notice(
        reason=reason if _is_word(reason) else "",
        message=_clean(event.get("message")),
        source=_clean(source)[:_REASON_LIMIT],
        warning=event.get("type") == "Warning",
        time=newest_time(event),
    )


def newest_time(event: Object) -> datetime:
    """Return when an Event was last reported."""
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return next((parse_time(time) for time in times if time), EPOCH)


def _is_word(reason: str) -> bool:
    """Return whether a condition can have this reason."""
    return reason.isascii() and reason.isalnum() and reason[0].isalpha() and len(reason) <= 64


def _clean(text: Any) -> str:
    return clean_text(str(text or "")[:STATUS_TEXT_LIMIT])
