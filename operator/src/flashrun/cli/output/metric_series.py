"""The values of a followed run's metrics by step: those of its status, and those of storage."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from flashrun.api import evaluation
from flashrun.api.resource import EvaluationStatus, FlashRunStatus

if TYPE_CHECKING:
    from flashrun.api.records import MetricsRow

HEADLINES: Final = ("reward", "loss")
"""What a run is watched by: the reward if it has one, otherwise the loss."""


class MetricSeries:
    """What is known of the metrics of one run. A newer value of a step replaces an older one."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, float]] = {}
        self._step = 0
        self._headline = ""

    def add_status(self, status: FlashRunStatus) -> None:
        """Add the newest step and the evaluations that a status has."""
        if status.progress is not None:
            step = status.progress.step
            if step < self._step:
                self._forget_after(step)  # the next attempt repeats these steps
            self._step = step
            self._headline = self._headline or headline(status.progress.metrics)
            if step:
                self._add(step, status.progress.metrics)
        if status.evaluation is not None:
            self._add_evaluation(status.evaluation)

    def add_rows(self, rows: "Iterable[MetricsRow]") -> None:
        """Add rows of the history in storage."""
        for row in rows:
            self._add(row.step, row.values)

    def replace_rows(self, rows: "Iterable[MetricsRow]") -> None:
        """Take the whole history in storage; steps after its last one stay as they are known."""
        rows = list(rows)
        last = max((row.step for row in rows), default=-1)
        for values in self._values.values():
            for known in [number for number in values if number <= last]:
                del values[known]
        self.add_rows(rows)

    def curve(self, name: str) -> tuple[float, ...]:
        """Return the values of a metric in the order of their steps."""
        values = self._values.get(name, {})
        return tuple(values[step] for step in sorted(values))

    @property
    def headline(self) -> str:
        """The metric that the run is watched by; empty before the first step."""
        return next((name for name in HEADLINES if name in self._values), self._headline)

    def _add(self, step: int, values: Mapping[str, float | str]) -> None:
        for name, value in values.items():
            if (number := _finite(value)) is not None:
                self._values.setdefault(name, {})[step] = number

    def _add_evaluation(self, evaluated: EvaluationStatus) -> None:
        key = evaluation.metric_key(evaluated.metric)
        for point in (evaluated.baseline, evaluated.best, evaluated.last):
            if point is not None:
                # The history has the value with all its digits.
                number = _finite(point.score)
                if number is not None:
                    self._values.setdefault(key, {}).setdefault(point.step, number)

    def _forget_after(self, step: int) -> None:
        for values in self._values.values():
            for later in [number for number in values if number > step]:
                del values[later]


def headline(names: Iterable[str]) -> str:
    """Return the name of the most important of some metrics; empty when there is none."""
    names = list(names)
    return next((name for name in HEADLINES if name in names), names[0] if names else "")


def _finite(value: float | str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
