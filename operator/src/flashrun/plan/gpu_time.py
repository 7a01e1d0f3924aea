"""GPU time: for how long the pods of runs held GPUs, counted once per GPU.

A pod holds its GPUs from when a kubelet takes it on until its last container of ours has ended:
also while it pulls an image, downloads the model or installs packages.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from flashrun.api.resource import AttemptStatus, FlashRun, FlashRunStatus


class GpuTime(NamedTuple):
    """GPU time of a run, in whole seconds."""

    total: int = 0
    of_month: int = 0
    """The part of it in the calendar month, in UTC, at the end of which it is counted."""


def month_start(moment: datetime) -> datetime:
    """Return when the calendar month of ``moment`` began, in UTC."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def gpu_time(status: FlashRunStatus, moment: datetime, *, goes_on: bool = False) -> GpuTime:
    """Return the GPU time of a run until ``moment``; attempts that go on count if the run does."""
    now = moment if goes_on else None
    month = seconds_by_pool(status, now, month_start(moment))
    total = seconds_by_pool(status, now)
    return GpuTime(int(sum(total.values())), int(sum(month.values())))


def attempt_seconds(
    attempt: AttemptStatus,
    now: datetime | None = None,
    since: datetime | None = None,
    latest: datetime | None = None,
) -> float:
    """Return the GPU time of one attempt after ``since`` and before ``latest``.

    One that goes on counts until ``now``, and not at all without it.
    """
    begin, end = attempt.held_from or attempt.start, attempt.end or now
    if begin is None or end is None:
        return 0.0
    if latest is not None:
        end = min(end, latest)
    if since is not None:
        begin = max(begin, since)
    return attempt.gpus * max(0.0, (end - begin).total_seconds())


def newly_ended_seconds(before: Iterable[AttemptStatus], attempts: Iterable[AttemptStatus]) -> int:
    """Return by how much the GPU time of a run has grown since a status listed ``before``.

    A status lists the newest attempts only; what earlier ones used is in its total already.
    """
    known = {attempt.pod: attempt_seconds(attempt) for attempt in before}
    grown = (attempt_seconds(attempt) - known.get(attempt.pod, 0.0) for attempt in attempts)
    return max(0, int(sum(grown)))


def seconds_by_pool(
    status: FlashRunStatus,
    now: datetime | None = None,
    since: datetime | None = None,
    latest: datetime | None = None,
) -> dict[str, float]:
    """Return the GPU time of a run after ``since`` and before ``latest``, by pool.

    Attempts that the status no longer lists count if the run began after ``since``, for the pool
    that the run is in now.
    """
    last = status.resolved.pool if status.resolved is not None else ""
    pools: dict[str, float] = {}
    for attempt in status.attempts:
        seconds = attempt_seconds(attempt, now, since, latest)
        pools[attempt.pool or last] = pools.get(attempt.pool or last, 0.0) + seconds
    listed = sum(attempt_seconds(attempt) for attempt in status.attempts)
    if since is None or (status.start_time is not None and status.start_time >= since):
        pools[last] = pools.get(last, 0.0) + max(0.0, status.gpu_seconds - listed)
    return {pool: seconds for pool, seconds in pools.items() if seconds}


def used_until(manifest: Mapping[str, Any], now: datetime) -> GpuTime:
    """Return the GPU time of a run that is deleted ``now``, from its object; 0 if it is unreadable.

    Its pods are asked to stop when it is deleted; the time in which they save is not counted.
    """
    try:
        status = FlashRun.from_manifest(manifest).status
    except (ValidationError, KeyError):
        return GpuTime()
    return gpu_time(status, now, goes_on=True)
