"""What a run costs: seconds per phase, tokens, memory, and how long the start took.

A row of the metrics history covers the time since the previous row. The seconds of a save are
therefore in the row after it.
"""

import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from flashrun.api.records import STARTUP, STEP_SECONDS


class StepPhase(StrEnum):
    """The parts of a step that are timed; the rest of the step is training."""

    GENERATION = "generation"
    ENVIRONMENT = "environment"
    SCORING = "scoring"
    SAVING = "saving"


_STARTUP_FILE: Final = "seconds.json"
"""File with the durations of the init containers, in the folder that all containers share."""


class StepTimer:
    """Measures the steps of one attempt, in seconds."""

    def __init__(
        self,
        startup_seconds: dict[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._startup_seconds = dict(startup_seconds or {})
        self._phase_seconds: dict[StepPhase, float] = defaultdict(float)
        self._current_phase: tuple[StepPhase, float] | None = None
        self._tokens: float | None = None
        self._part_began = self._row_began = clock()

    @contextmanager
    def timed(self, phase: StepPhase) -> Iterator[None]:
        """Count the seconds inside the ``with`` block as ``phase`` of the current row."""
        began = self._clock()
        self._current_phase = (phase, began)
        try:
            yield
        finally:
            self._current_phase = None
            self._phase_seconds[phase] += self._clock() - began

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Count the seconds inside the ``with`` block as part of no row."""
        began = self._clock()
        try:
            yield
        finally:
            self._row_began += self._clock() - began

    def current_phase(self) -> tuple[StepPhase | None, float]:
        """Return the phase that is timed now and its seconds so far; (None, 0) without one."""
        if (current := self._current_phase) is None:
            return None, 0.0
        phase, began = current
        return phase, self._clock() - began

    def end_startup_part(self, part: str) -> None:
        """Count the seconds since the previous part as ``part`` of the start-up."""
        now = self._clock()
        self._startup_seconds[part] = now - self._part_began
        self._part_began = self._row_began = now

    def start_tokens_at(self, tokens: float) -> None:
        """Set how many tokens earlier attempts of this run have trained on."""
        self._tokens = tokens

    def count_as_saving(self) -> None:
        """Count the seconds since the last row as saving, because training has waited for it."""
        self._phase_seconds[StepPhase.SAVING] += self._clock() - self._row_began

    def end_row(self, tokens: float) -> dict[str, float]:
        """Return what the step cost, and start the next row.

        ``tokens`` counts from the beginning of the run, not of the attempt.
        """
        now = self._clock()
        seconds = now - self._row_began
        phases = dict(self._phase_seconds)
        values = {f"seconds/{phase}": spent for phase, spent in phases.items()}
        values["seconds/training"] = max(0.0, seconds - sum(phases.values()))
        values[STEP_SECONDS] = seconds
        values["tokens"] = tokens
        values["tokens_per_second"] = (tokens - (self._tokens or 0.0)) / max(seconds, 1e-9)
        values["memory/peak_bytes"] = float(peak_memory_bytes())
        if self._startup_seconds:
            self._startup_seconds["first_step"] = seconds
            values |= {f"{STARTUP}{part}": spent for part, spent in self._startup_seconds.items()}
        self._startup_seconds, self._tokens, self._row_began = {}, tokens, now
        self._phase_seconds.clear()
        return values


def record_startup_seconds(folder: Path, name: str, seconds: float) -> None:
    """Record the duration of the init container ``name``, for the trainer."""
    path = folder / _STARTUP_FILE
    path.write_text(json.dumps(_read(path) | {name: round(seconds, 3)}))


def load_startup_seconds(folder: Path) -> dict[str, float]:
    """Return the durations of the init containers, and the age of this process as ``imports``."""
    return _read(folder / _STARTUP_FILE) | {"imports": process_age_seconds()}


def _read(path: Path) -> dict[str, float]:
    try:
        seconds = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): float(spent) for name, spent in seconds.items()}


def describe_start(values: Mapping[str, float]) -> str:
    """Return how long the pod worked before it trained; "" when ``values`` do not say it.

    ``values`` is a row of metrics. The pod holds its GPUs from the first init container on.
    """
    parts = {
        name.removeprefix(STARTUP): seconds
        for name, seconds in values.items()
        if name.startswith(STARTUP) and name != f"{STARTUP}first_step"
    }
    if not parts:
        return ""
    shown = ", ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items())
    return f"{sum(parts.values()):.1f} s without training before the first step: {shown}"


def process_age_seconds() -> float:
    """Return how long ago the kernel started this process."""
    # The program name, in parentheses, may contain spaces; the start time is field 22 (proc(5)).
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def peak_memory_bytes() -> int:
    """Return the peak memory use so far, in bytes: of the GPU if there is one, else of the host."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        with suppress(RuntimeError):  # a GPU that has failed may not answer
            return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
