"""Clocks that a test sets."""

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo


@dataclass
class Clock:
    """Returns the time that it was set to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class LaterTime:
    """Stands for ``datetime`` in a module: the time is later than it is."""

    by: timedelta = timedelta(0)

    def now(self, zone: tzinfo) -> datetime:
        return datetime.now(zone) + self.by
