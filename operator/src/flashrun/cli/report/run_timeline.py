"""How a run spent its time: waiting, starting, training and finishing, attempt by attempt.

The times are those of status and of the rows of the metrics. A row is written after its step, so an
attempt counts as starting until its first row.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from flashrun.api.records import MetricsRow
from flashrun.api.resource import AttemptStatus, FlashRun


class Stage(StrEnum):
    """What a run does during a span of its time."""

    WAITING = "waiting"
    """It has no pod: for a GPU, for a quota, or between two attempts."""
    STARTING = "starting"
    """Image, packages, model, and up to the first row of metrics."""
    TRAINING = "training"
    FINISHING = "finishing"
    """From the last row of metrics to the end of the pod: uploads, or nothing after a fault."""


class Span(NamedTuple):
    """A part of a run's time, in seconds since it was created."""

    stage: Stage
    begin: float
    end: float
    attempt: int | None = None


_Stretch = tuple[Stage, datetime, datetime, int | None]
"""A stage from one time to another, and the attempt that it belongs to."""


def run_spans(run: FlashRun, rows: Sequence[MetricsRow], now: datetime) -> list[Span]:
    """Return the spans of a run in their order; empty for one that was deleted.

    ``now`` ends what has not ended.
    """
    if run.created is None:
        return []
    created = free_since = run.created
    spans: list[_Stretch] = []
    for attempt in run.status.attempts:
        if attempt.start is None:
            continue
        end = attempt.end or run.status.completion_time or now
        times = sorted(row.time for row in rows if row.attempt == attempt.number)
        spans.append((Stage.WAITING, free_since, attempt.start, None))
        spans += _attempt_stages(attempt, attempt.start, end, times)
        free_since = end
    if run.status.completion_time is None and free_since < now:
        spans.append((Stage.WAITING, free_since, now, None))
    return [
        Span(stage, (begin - created).total_seconds(), (end - created).total_seconds(), number)
        for stage, begin, end, number in spans
        if begin < end
    ]


def _attempt_stages(
    attempt: AttemptStatus, start: datetime, end: datetime, times: Sequence[datetime]
) -> Iterator[_Stretch]:
    # Clocks of nodes differ: a row may seem to be older than its pod, or newer than its end.
    first, last = ((min(max(time, start), end) for time in (times[0], times[-1])) if times else
                   (end, end))  # fmt: skip
    yield Stage.STARTING, start, first, attempt.number
    yield Stage.TRAINING, first, last, attempt.number
    yield Stage.FINISHING, last, end, attempt.number
