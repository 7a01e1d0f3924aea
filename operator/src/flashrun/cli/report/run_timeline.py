"""How a run spent its time: queued, pulling, model, packages, training, uploading.

The times are those of status and of the rows of the metrics. The first row of an attempt has the
seconds of what happened before it; what is left of the time since the pod was started is the pull
of the image. Nothing is known about the start of an attempt that has stored no row.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from flashrun.api import evaluation, pod
from flashrun.api.reasons import Reason
from flashrun.api.records import STARTUP, MetricsRow
from flashrun.api.resource import AttemptStatus, FlashRun


class Stage(StrEnum):
    """What a run does during a span of its time."""

    QUEUED = "queued"
    """It has no pod: it waits for a GPU, for a quota, or between two attempts."""
    STARTING = "starting"
    """All up to the training of an attempt that has stored no row."""
    PULLING = "pulling"
    """The node pulls the image, and starts the containers."""
    MODEL = "model"
    """The base model is downloaded, and later loaded by the trainer."""
    PACKAGES = "packages"
    """The packages of the environment are installed."""
    TRAINING = "training"
    """Steps and evaluations, from the start of the first one to the last row of metrics."""
    UPLOADING = "uploading"
    """From the last row of metrics to the end of an attempt that completed the run."""
    ENDING = "ending"
    """The same of any other attempt: its last save, and steps that were lost."""


class Span(NamedTuple):
    """A part of a run's time, in seconds since it was created."""

    stage: Stage
    begin: float
    end: float
    attempt: int | None = None


_Stretch = tuple[Stage, datetime, datetime, int | None]
"""A stage from one time to another, and the attempt that it belongs to."""

_START_PARTS: Final = (
    (Stage.MODEL, (pod.MODEL_CONTAINER,)),
    (Stage.PACKAGES, (pod.PACKAGES_CONTAINER,)),
    (Stage.MODEL, ("imports", "loading")),
)
"""The parts of an attempt's start in their order, and the metrics with their seconds."""
_ROW_SECONDS: Final = ("seconds/step", evaluation.metric_key(evaluation.SECONDS))
"""Metrics with the time that a row is about; a row has one of them."""


def run_spans(run: FlashRun, rows: Sequence[MetricsRow], now: datetime) -> list[Span]:
    """Return the spans of a run in their order; empty for one that was deleted.

    ``now`` ends what has not ended.
    """
    if run.created is None:
        return []
    created = free_since = run.created
    spans: list[_Stretch] = []
    for attempt in run.status.attempts:
        start = attempt.held_from or attempt.start  # the trainer starts after the init containers
        if start is None:
            continue
        spans.append((Stage.QUEUED, free_since, start, None))
        end = attempt.end or run.status.completion_time or now
        own = sorted((row for row in rows if row.attempt == attempt.number), key=_time)
        spans += _attempt_stages(attempt, start, end, own)
        free_since = end
    if run.status.completion_time is None and free_since < now:
        spans.append((Stage.QUEUED, free_since, now, None))
    return [
        Span(stage, (begin - created).total_seconds(), (end - created).total_seconds(), number)
        for stage, begin, end, number in spans
        if begin < end
    ]


def _time(row: MetricsRow) -> datetime:
    return row.time


def _attempt_stages(
    attempt: AttemptStatus, start: datetime, end: datetime, rows: Sequence[MetricsRow]
) -> Iterator[_Stretch]:
    if not rows:
        yield Stage.STARTING, start, end, attempt.number
        return

    # Clocks of nodes differ: a row may seem to be older than its pod, or newer than its end.
    def within(time: datetime) -> datetime:
        return min(max(time, start), end)

    first, last = rows[0], rows[-1]
    begun = within(first.time - timedelta(seconds=_seconds(first, *_ROW_SECONDS)))
    startup = next((row for row in rows if row.is_first), None)
    stages = [(Stage.STARTING, start, begun)] if startup is None else _start(startup, start, begun)
    trained = end if attempt.end is None else within(last.time)
    completed = attempt.reason == Reason.COMPLETED
    stages += [
        (Stage.TRAINING, begun, trained),
        (Stage.UPLOADING if completed else Stage.ENDING, trained, end),
    ]
    for stage, stage_begin, stage_end in stages:
        yield stage, stage_begin, stage_end, attempt.number


def _start(
    row: MetricsRow, start: datetime, begun: datetime
) -> list[tuple[Stage, datetime, datetime]]:
    """Divide the time from the start of the pod to that of training by the seconds in ``row``."""
    stages, end = [], begun
    for stage, names in reversed(_START_PARTS):
        seconds = _seconds(row, *(f"{STARTUP}{name}" for name in names))
        begin = max(start, end - timedelta(seconds=seconds))
        stages.append((stage, begin, end))
        end = begin
    return [(Stage.PULLING, start, end), *reversed(stages)]


def _seconds(row: MetricsRow, *names: str) -> float:
    """Return the sum of the row's values of these names; 0 for those that it does not have."""
    return sum(max(0.0, row.values.get(name, 0.0)) for name in names)
