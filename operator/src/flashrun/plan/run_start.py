"""The start of a run, from its creation to its first step: which stages it had, and for how long.

The times are those of the API server, of the kubelet, and of the trainer's first row of metrics.
Their clocks differ: no stage is outside the start, and none ends before it begins.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from flashrun.api.pod import (
    MODEL_CONTAINER,
    PACKAGES_CONTAINER,
    TRAINER_CONTAINER,
    container_statuses,
)
from flashrun.api.reasons import TERMINAL, Phase, Reason
from flashrun.api.records import STARTUP, MetricsRow
from flashrun.api.resource import AttemptStatus, FlashRun, FlashRunStatus
from flashrun.api.times import parse_time
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.types import Object, Observed

_LONGEST: Final = timedelta(days=365)


class StartStage(StrEnum):
    """What a run does on its way to the first step."""

    SUBMITTED = "submitted"
    """It waits for the operator: for a GPU, for Secrets, for its turn."""
    ATTEMPT = "earlier attempt"
    """An attempt that ended before it did a step."""
    QUEUED = "queued"
    """Its Job waits for a pod: in a queue, for a quota, or between two attempts."""
    SCHEDULING = "scheduling"
    """Its pod waits for a node."""
    IMAGE = "image"
    """The node pulls the image, and makes the containers."""
    DOWNLOAD = "download"
    """The base model is downloaded."""
    PACKAGES = "packages"
    """The packages of the environment are installed."""
    TRAINER = "trainer"
    """All that the trainer does, where its first row of metrics is not known."""
    IMPORTS = "imports"
    """The trainer's process starts."""
    LOADING = "loading"
    """Model and data are loaded."""
    EVALUATION = "evaluation"
    """What is between loading and the first step: the evaluation before training."""
    FIRST_STEP = "first step"


@dataclass(frozen=True)
class StageSpan:
    """One stage of a start."""

    stage: StartStage
    begin: datetime
    end: datetime
    reason: str = ""
    """Why it ended, of an attempt."""


@dataclass(frozen=True)
class RunStart:
    """The start of one run; it holds no text of users but names."""

    namespace: str
    name: str
    uid: str
    model: str
    prefix: str
    """Prefix of the run in storage."""
    phase: Phase
    reason: str
    """Why the run ended before its first step; empty if it did one."""
    begin: datetime
    end: datetime
    spans: tuple[StageSpan, ...]
    attempt: int = 0
    """Number of the attempt that did the first step; 0: not known."""
    trainer_began: datetime | None = None

    @property
    def trace_id(self) -> str:
        """The id of the trace, in hex: the same whoever sends it, and whenever."""
        return _digest(self.uid)[:32]

    def span_id(self, number: int) -> str:
        """Return the id of a span, in hex; 0 is the whole start, which the others belong to."""
        return _digest(f"{self.uid} {number}")[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def first_step_time(before: FlashRunStatus, after: FlashRunStatus) -> datetime | None:
    """Return when a run did its first step, if it had done none before.

    A checkpoint may be seen before a heartbeat: then it is the time of the first checkpoint.
    """
    if _has_stepped(before):
        return None
    progress = after.progress
    if progress is not None and progress.step and progress.updated_time is not None:
        return progress.updated_time
    return min((saved.created_time for saved in after.checkpoints), default=None)


def _has_stepped(status: FlashRunStatus) -> bool:
    stepped = status.progress is not None and status.progress.step > 0
    return bool(stepped or status.checkpoint_count or any(item.to_step for item in status.attempts))


def run_start(
    run: FlashRun, status: FlashRunStatus, observed: Observed, now: datetime
) -> RunStart | None:
    """Return the start of ``run`` if ``status`` is the first one that shows how it went.

    That is the first one with a step, or with the end of a run that did none.
    """
    before, begin = run.status, run.created
    if begin is None:
        return None
    end = first_step_time(before, status)
    failed = end is None
    if end is None:
        ended = status.phase in TERMINAL and before.phase not in TERMINAL
        if not ended or _has_stepped(before):
            return None
        end = status.completion_time or now
    end = max(begin, min(end, now))
    attempt = _deciding_attempt(status)
    pod = _pod_of(observed, attempt)
    trainer_began = None if failed else _state_times(pod, TRAINER_CONTAINER)[0]
    spans = _spans(run, status, observed, attempt, pod, end)
    return RunStart(
        namespace=run.namespace,
        name=run.name,
        uid=run.uid,
        model=run.spec.model,
        prefix=run.storage_prefix,
        phase=status.phase,
        reason=_reason(status.failure.reason if status.failure else status.phase) if failed else "",
        begin=begin,
        end=end,
        spans=tuple(_within(spans, begin, end)),
        attempt=attempt.number if attempt and trainer_began else 0,
        trainer_began=trainer_began,
    )


def with_first_row(start: RunStart, row: MetricsRow) -> RunStart:
    """Return the start with what the first row of its attempt says of the trainer."""
    began = start.trainer_began
    if began is None:
        return start
    end = max(began, min(row.time, start.end))
    imported = began + _seconds(row.values, "imports")
    loaded = imported + _seconds(row.values, "loading")
    stepping = max(loaded, end - _seconds(row.values, "first_step"))
    spans = [span for span in start.spans if span.stage is not StartStage.TRAINER]
    spans += [
        StageSpan(StartStage.IMPORTS, began, imported),
        StageSpan(StartStage.LOADING, imported, loaded),
        StageSpan(StartStage.EVALUATION, loaded, stepping),
        StageSpan(StartStage.FIRST_STEP, stepping, end),
    ]
    return replace(start, end=end, spans=tuple(_within(spans, start.begin, end)))


def _spans(
    run: FlashRun,
    status: FlashRunStatus,
    observed: Observed,
    attempt: AttemptStatus | None,
    pod: Object | None,
    end: datetime,
) -> Iterator[StageSpan]:
    assert run.created is not None  # the caller has looked
    times = (_time(job["metadata"].get("creationTimestamp")) for job in observed.jobs)
    since = min((time for time in times if time), default=None)
    known = since or _held_from(status.attempts[0] if status.attempts else None) or end
    yield StageSpan(StartStage.SUBMITTED, run.created, known)
    since = known
    for earlier in status.attempts:
        if earlier is not attempt and earlier.end is not None:
            began = _held_from(earlier) or since
            yield StageSpan(StartStage.ATTEMPT, began, earlier.end, _reason(earlier.reason))
            since = max(since, earlier.end)
    if attempt is None:
        if observed.jobs:
            yield StageSpan(StartStage.QUEUED, since, end)
    elif pod is None:
        held = _held_from(attempt) or end
        yield StageSpan(StartStage.QUEUED, since, held)
        yield StageSpan(StartStage.ATTEMPT, held, attempt.end or end, _reason(attempt.reason))
    else:
        yield from _pod_spans(pod, since, attempt.end or end)


def _pod_spans(pod: Object, since: datetime, end: datetime) -> Iterator[StageSpan]:
    """Yield the stages of a pod, as far as it has come."""
    created = _time(pod["metadata"].get("creationTimestamp")) or since
    yield StageSpan(StartStage.QUEUED, since, created)
    condition = find_condition(pod, "PodScheduled")
    accepted = _time((pod.get("status") or {}).get("startTime"))
    scheduled = _time(condition.get("lastTransitionTime")) if condition else accepted
    yield StageSpan(StartStage.SCHEDULING, created, scheduled or accepted or end)
    if scheduled is None and accepted is None:
        return
    download, packages, trainer = (
        _state_times(pod, name) for name in (MODEL_CONTAINER, PACKAGES_CONTAINER, TRAINER_CONTAINER)
    )
    begun = next((times[0] for times in (download, packages, trainer) if times[0]), None)
    yield StageSpan(StartStage.IMAGE, scheduled or accepted or created, begun or end)
    for stage, (began, ended) in (
        (StartStage.DOWNLOAD, download),
        (StartStage.PACKAGES, packages),
        (StartStage.TRAINER, trainer),
    ):
        if began is not None:
            yield StageSpan(stage, began, ended or end)


def _deciding_attempt(status: FlashRunStatus) -> AttemptStatus | None:
    """Return the last attempt that has a number; when none has one, the last attempt."""
    numbered = [attempt for attempt in status.attempts if attempt.number]
    attempts = numbered or status.attempts
    return attempts[-1] if attempts else None


def _pod_of(observed: Observed, attempt: AttemptStatus | None) -> Object | None:
    if attempt is None:
        return None
    return next((pod for pod in observed.pods if pod["metadata"]["name"] == attempt.pod), None)


def _held_from(attempt: AttemptStatus | None) -> datetime | None:
    return None if attempt is None else attempt.held_from or attempt.start


def _state_times(pod: Object | None, name: str) -> tuple[datetime | None, datetime | None]:
    """Return when a container began and ended, as far as it did."""
    for item in container_statuses(pod or {}):
        if item["name"] == name:
            state = item.get("state") or {}
            ended = state.get("terminated") or {}
            running = state.get("running") or ended
            return _time(running.get("startedAt")), _time(ended.get("finishedAt"))
    return None, None


def _time(text: str | None) -> datetime | None:
    """Return a time that another program wrote; None for anything else.

    The kubelet dates what has not happened to the beginning of 1970.
    """
    try:
        moment = parse_time(text or "")
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo and moment.timestamp() else None


def _reason(reason: str) -> str:
    """Return a word of ours; what another program wrote may be anything."""
    ours = {*Reason, *Phase}
    return str(reason) if reason in ours else "Other"


def _seconds(values: Mapping[str, float], part: str) -> timedelta:
    seconds = values.get(f"{STARTUP}{part}", 0.0)
    return timedelta(seconds=min(max(0.0, seconds), _LONGEST.total_seconds()))


def _within(
    spans: Iterator[StageSpan] | list[StageSpan], begin: datetime, end: datetime
) -> Iterator[StageSpan]:
    """Yield the spans within ``begin`` and ``end``, in the order of their times."""
    cut = (
        replace(span, begin=min(max(span.begin, begin), end), end=min(max(span.end, begin), end))
        for span in spans
    )
    for span in sorted(cut, key=lambda span: span.begin):
        yield replace(span, end=max(span.begin, span.end))
