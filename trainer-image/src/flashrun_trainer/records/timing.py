"""What a run costs: the seconds of every phase, tokens, memory, and how long it took to start.

A row of the history covers the time since the row before, so the seconds of a save are in the row
that follows it.
"""

import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Final


class Phase(StrEnum):
    """What a step is made of, besides training itself."""

    GENERATION = "generation"
    ENVIRONMENT = "environment"
    SCORING = "scoring"
    SAVING = "saving"


_NOTES: Final = "seconds.json"
"""Where init containers leave how long they took, in the folder that they share."""


class Meter:
    """Measures one attempt."""

    def __init__(
        self,
        before: dict[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._startup = dict(before or {})
        self._phases: dict[Phase, float] = defaultdict(float)
        self._under_way: tuple[Phase, float] | None = None
        self._tokens: float | None = None
        self._mark = self._row_began = clock()

    @contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Count the seconds inside as ``phase`` of the current row."""
        began = self._clock()
        self._under_way = (phase, began)
        try:
            yield
        finally:
            self._under_way = None
            self._phases[phase] += self._clock() - began

    def under_way(self) -> tuple[Phase | None, float]:
        """Return the phase that is timed now, and its seconds so far; None and 0 without one."""
        if (now := self._under_way) is None:
            return None, 0.0
        return now[0], self._clock() - now[1]

    def started(self, part: str) -> None:
        """Count the seconds since the last part as ``part`` of the start-up."""
        now = self._clock()
        self._startup[part] = now - self._mark
        self._mark = self._row_began = now

    def resumed(self, tokens: float) -> None:
        """Say how many tokens earlier attempts have learned."""
        self._tokens = tokens

    def saved(self) -> None:
        """Count the seconds since the last row as saving: training stood still."""
        self._phases[Phase.SAVING] += self._clock() - self._row_began

    def row(self, tokens: float) -> dict[str, float]:
        """Return what the step cost; ``tokens`` counts from the beginning of the run."""
        now = self._clock()
        seconds = now - self._row_began
        phases = dict(self._phases)
        values = {f"seconds/{phase}": spent for phase, spent in phases.items()}
        values["seconds/training"] = max(0.0, seconds - sum(phases.values()))
        values["seconds/step"] = seconds
        values["tokens"] = tokens
        values["tokens_per_second"] = (tokens - (self._tokens or 0.0)) / max(seconds, 1e-9)
        values["memory/peak_bytes"] = float(peak_memory())
        if self._startup:
            self._startup["first_step"] = seconds
            values |= {f"startup/{part}": spent for part, spent in self._startup.items()}
        self._startup, self._tokens, self._row_began = {}, tokens, now
        self._phases.clear()
        return values


def note(folder: Path, name: str, seconds: float) -> None:
    """Leave a word for the trainer about how long an init container took."""
    path = folder / _NOTES
    path.write_text(json.dumps(_read(path) | {name: round(seconds, 3)}))


def notes(folder: Path) -> dict[str, float]:
    """Return what the init containers left, and the seconds since this process began."""
    return _read(folder / _NOTES) | {"imports": process_seconds()}


def _read(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): float(spent) for name, spent in found.items()}


def process_seconds() -> float:
    """Return how long ago the kernel started this process."""
    # The name of the program, in parentheses, may hold spaces; the start is field 22.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def peak_memory() -> int:
    """Return the most memory in use so far, in bytes: the GPU's where there is one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        with suppress(RuntimeError):  # a GPU that has failed may not say
            return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
