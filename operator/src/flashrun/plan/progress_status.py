"""``status.progress``: the trainer's step and metrics, and what its pod does before the first."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeVar

from flashrun.api.records import STEP_SECONDS, Heartbeat, Progress, Result
from flashrun.api.resource import ProgressStatus
from flashrun.api.times import whole_seconds
from flashrun.plan.notices import pod_activity
from flashrun.plan.pods import Pod
from flashrun.plan.types import Observed

ProgressRecord = TypeVar("ProgressRecord", Heartbeat, Result)

_METRICS_SHOWN: Final = 16
_LONGEST_ACTIVITY: Final = 64
_LONGEST_METRIC_NAME: Final = 64


def progress_status(
    before: ProgressStatus | None, observed: Observed, pods: tuple[Pod, ...]
) -> ProgressStatus | None:
    """Return the progress of the result, else of the heartbeat, else of the last pass.

    ``before`` is returned as it is where nothing but times has changed.
    """
    heartbeat, result = observed.storage.heartbeat, observed.storage.result
    activity, updated, progress = "", None, None
    if result is not None:
        progress, updated = result.progress, result.finished
    elif heartbeat is not None:
        progress, updated = heartbeat.progress, heartbeat.updated
        activity = _activity(heartbeat, observed, pods)
    if progress is None:
        activity = activity or _pod_activity(observed, pods)
        known = before or ProgressStatus(step=0, total_steps=0, percent=0)
        return before if known.activity == activity else known.replace(activity=activity)
    current = _from_record(progress, activity, updated)
    same = before is not None and _without_times(before) == _without_times(current)
    return before if same else current


def with_shown_metrics(record: ProgressRecord) -> ProgressRecord:
    """Return a record with the metrics that status shows: the others need not stay in memory.

    The time of a step is for the operator's own metrics.
    """
    progress = record.progress
    if progress is None:
        return record
    return record.replace(progress=progress.replace(metrics=_shown(progress.metrics)))


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    shown = sorted((name, metrics[name]) for name in metrics.keys() - {STEP_SECONDS})
    return {name[:_LONGEST_METRIC_NAME]: value for name, value in shown[:_METRICS_SHOWN]}


def _without_times(progress: ProgressStatus) -> ProgressStatus:
    return progress.replace(updated_time=None, eta_seconds=None)


def _activity(heartbeat: Heartbeat, observed: Observed, pods: tuple[Pod, ...]) -> str:
    """Return the heartbeat's activity if its pod is active; it may be from the last attempt."""
    if any(pod.name == heartbeat.pod and pod.active for pod in pods):
        return heartbeat.activity[:_LONGEST_ACTIVITY]
    return _pod_activity(observed, pods)


def _pod_activity(observed: Observed, pods: tuple[Pod, ...]) -> str:
    active = (pod for pod in reversed(pods) if pod.active)
    return next((pod_activity(pod, observed.notices) or "" for pod in active), "")


def _from_record(progress: Progress, activity: str, updated: datetime | None) -> ProgressStatus:
    total = progress.total_steps
    return ProgressStatus(
        step=progress.step,
        total_steps=total,
        percent=min(100, 100 * progress.step // total) if total else 0,
        eta_seconds=progress.eta_seconds,
        metrics={key: f"{value:.4g}" for key, value in _shown(progress.metrics).items()},
        activity=activity,
        updated_time=None if updated is None else whole_seconds(updated),
    )
