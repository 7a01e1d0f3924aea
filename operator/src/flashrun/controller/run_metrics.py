"""Metrics of runs: how many are in which phase, what each of them has, and how they went.

Counters and histograms name no run: their series would stay for ever. Gauges name the runs that
go on, and for a few minutes those that have ended, so that their last values are scraped.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from flashrun.api.reasons import TERMINAL, Phase
from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.controller import operator_metrics
from flashrun.controller.queue import RunKey
from flashrun.plan.run_start import first_step_time

SHOWN_RUNS: Final = 1_000
"""Most runs that have gauges of their own; those that were looked at last."""
SHOWN_AFTER_END_SECONDS: Final = 600.0
"""How long the gauges of a run stay after its end."""
_AT_WORK: Final = frozenset({Phase.RUNNING, Phase.RETRYING})
_UNKNOWN: Final = "Unknown"
"""A phase of another version of the operator."""

Phases = Callable[[], Mapping[tuple[str, str], int]]
"""Returns how many runs there are by namespace and phase."""


class _Shown(NamedTuple):
    """What the gauges of one run show."""

    status: FlashRunStatus
    ended: float | None
    """When the end of the run was seen, by the clock of the collector."""


class RunMetrics(Collector):
    """Counts what happens to runs, and collects their gauges; any thread may call it."""

    def __init__(
        self,
        phases: Phases = dict,
        clock: Callable[[], float] = time.monotonic,
        is_served: Callable[[str], bool] = lambda namespace: True,
    ) -> None:
        """``is_served`` says of a namespace whether its runs are still looked at."""
        self._phases, self._clock, self._lock = phases, clock, threading.Lock()
        self._is_served = is_served
        self._shown: OrderedDict[RunKey, _Shown] = OrderedDict()

    def written(self, run: FlashRun, status: FlashRunStatus) -> None:
        """Count what has changed from the status of ``run`` to the one that was written."""
        before, pool = run.status, status.resolved.pool if status.resolved else ""
        if status.phase in TERMINAL and before.phase not in TERMINAL:
            reason = status.failure.reason if status.failure else ""
            operator_metrics.ENDED.labels(status.phase, reason).inc()
        spent = status.gpu_seconds - before.gpu_seconds
        if spent > 0:
            operator_metrics.GPU_SECONDS.labels(run.namespace, pool).inc(spent)
        if run.created is None:
            return
        if status.start_time is not None and before.start_time is None:
            seconds = _seconds(run.created, status.start_time)
            operator_metrics.QUEUE_SECONDS.labels(run.namespace, pool).observe(seconds)
        if (first := first_step_time(before, status)) is not None:
            seconds = _seconds(run.created, first)
            operator_metrics.FIRST_STEP_SECONDS.labels(run.namespace, pool).observe(seconds)

    def show(self, run: FlashRun, status: FlashRunStatus) -> None:
        """Let the gauges of a run show ``status``."""
        key = RunKey(run.namespace, run.name)
        with self._lock:
            before = self._shown.pop(key, None)
            ended = None
            if status.phase in TERMINAL:
                if before is None and run.status.phase in TERMINAL:
                    return  # it ended long ago
                ended = before.ended if before and before.ended is not None else self._clock()
            self._shown[key] = _Shown(status, ended)
            if len(self._shown) > SHOWN_RUNS:
                self._shown.popitem(last=False)

    def forget(self, key: RunKey) -> None:
        """Drop the gauges of a run that was deleted."""
        with self._lock:
            self._shown.pop(key, None)

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield self._collect_phases()
        names = ["namespace", "run"]
        step = GaugeMetricFamily("flashrun_run_step", "Newest step of a run.", labels=names)
        committed = GaugeMetricFamily(
            "flashrun_run_checkpoint_timestamp_seconds",
            "When the newest checkpoint of a running run was committed, or its newest attempt "
            "started: what an interruption would cost since then.",
            labels=names,
        )
        size = GaugeMetricFamily(
            "flashrun_run_checkpoint_bytes", "Size of the newest checkpoint.", labels=names
        )
        score = GaugeMetricFamily(
            "flashrun_run_evaluation_score",
            "Score of the newest evaluation, a value of the metric in the label.",
            labels=[*names, "metric"],
        )
        for key, status in self._statuses():
            if status.progress is not None:
                step.add_metric(list(key), status.progress.step)
            newest = status.checkpoints[0] if status.checkpoints else None
            if status.phase in _AT_WORK and (since := _unsaved_since(status)) is not None:
                committed.add_metric(list(key), since.timestamp())
            if newest is not None:
                size.add_metric(list(key), newest.bytes)
            if (evaluation := status.evaluation) is not None and evaluation.last is not None:
                with contextlib.suppress(ValueError):  # others may write a status, too
                    score.add_metric([*key, evaluation.metric], float(evaluation.last.score))
        yield from (step, committed, size, score)

    def _statuses(self) -> list[tuple[RunKey, FlashRunStatus]]:
        oldest = self._clock() - SHOWN_AFTER_END_SECONDS
        with self._lock:
            for key, shown in list(self._shown.items()):
                over = shown.ended is not None and shown.ended < oldest
                if over or not self._is_served(key.namespace):
                    del self._shown[key]
            return [(key, shown.status) for key, shown in self._shown.items()]

    def _collect_phases(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "flashrun_runs", "Runs in served namespaces.", labels=["namespace", "phase"]
        )
        counts: dict[tuple[str, str], int] = {}
        for (namespace, phase), count in self._phases().items():
            for known in Phase:
                counts.setdefault((namespace, known), 0)
            shown = phase or Phase.PENDING
            place = (namespace, shown if shown in set(Phase) else _UNKNOWN)
            counts[place] = counts.get(place, 0) + count
        for labels, count in counts.items():
            family.add_metric(list(labels), count)
        return family


def _unsaved_since(status: FlashRunStatus) -> datetime | None:
    """Return the later one of the newest checkpoint and the start of the newest attempt."""
    times = [status.attempts[-1].start] if status.attempts else []
    times += [status.checkpoints[0].created_time] if status.checkpoints else []
    return max((time for time in times if time is not None), default=None)


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())
