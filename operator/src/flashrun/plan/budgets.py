"""Budgets: the GPU hours that a run, or a namespace, may use, and the time that is left of them.

They are counted as ``flash cost`` counts them, from the time for which pods held GPUs.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.plan.gpu_time import seconds_by_pool

LOOK_SECONDS: Final = 60.0
"""Longest time until the budget of a namespace is looked at again: other runs use it, too."""


@dataclass(frozen=True)
class NamespaceBudget:
    """The GPU hours of a namespace in this calendar month."""

    hours: float
    """How many its runs may use."""
    used_seconds: float
    gpus: int
    """GPUs that its runs hold now."""
    renewed: datetime
    """When the next month begins, in UTC."""
    problem: str = ""
    """One sentence when it is not known what has been used."""

    @property
    def is_used_up(self) -> bool:
        """Whether its runs have used all of it."""
        return not self.problem and self.used_seconds >= self.hours * 3600

    @property
    def time_left(self) -> timedelta | None:
        """When it will be used up with the present GPUs; None: not foreseeable."""
        if self.problem or not self.gpus:
            return None
        return timedelta(seconds=(self.hours * 3600 - self.used_seconds) / self.gpus)


def used_seconds(status: FlashRunStatus, now: datetime) -> float:
    """Return the GPU time of a run over all its attempts; those that go on count until ``now``."""
    return sum(seconds_by_pool(status, now).values())


def gpus_held(status: FlashRunStatus) -> int:
    """Return how many GPUs the attempts of a run hold now."""
    return sum(
        attempt.gpus
        for attempt in status.attempts
        if attempt.end is None and (attempt.held_from or attempt.start) is not None
    )


def is_used_up(run: FlashRun, status: FlashRunStatus, now: datetime) -> bool:
    """Return whether a run has used its budget, if it has one."""
    hours = run.spec.budget.gpu_hours
    return hours is not None and used_seconds(status, now) >= hours * 3600


def time_left(run: FlashRun, status: FlashRunStatus, now: datetime) -> timedelta | None:
    """Return when a run with its present GPUs will have used its budget; None: not foreseeable."""
    hours, gpus = run.spec.budget.gpu_hours, gpus_held(status)
    if hours is None or not gpus:
        return None
    return timedelta(seconds=(hours * 3600 - used_seconds(status, now)) / gpus)


def hours_text(seconds: float) -> str:
    """Return a GPU time as a number of hours, such as "1.25"."""
    hours = seconds / 3600
    return f"{hours:,.2f}".rstrip("0").rstrip(".") if hours >= 0.1 else f"{hours:.2g}"
