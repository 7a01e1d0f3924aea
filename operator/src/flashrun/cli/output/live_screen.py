"""What the live view of a run shows: its state as rows, and rows as lines for a terminal.

Everything here is a pure function, so that each stage of a run can be read in the tests.
"""

import functools
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from flashrun.api import evaluation
from flashrun.api.reasons import TERMINAL, ConditionType, Phase
from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.cli.output import formatting
from flashrun.cli.output.metric_series import HEADLINES, MetricSeries
from flashrun.cli.output.printable_text import printable_line
from flashrun.cli.output.sparkline import UNICODE, Glyphs, bar, sparkline
from flashrun.cli.output.tables import Tone

if TYPE_CHECKING:
    from rich.console import Console

WIDEST: Final = 200
"""Most columns that are used: longer lines are hard to read."""
_NARROWEST: Final = 20
_LABEL: Final = 12
"""Columns of the labels, with a space behind the longest."""
_COLUMNS_FROM: Final = 60
"""From this width on the labels have a column of their own."""
_SHORTEST_DRAWING: Final = 8
"""A curve that would have fewer characters gets a line of its own; a bar is left out."""
_LONGEST_CURVE: Final = 60
_LONGEST_BAR: Final = 30
_ATTEMPTS: Final = 4
"""How many of the newest attempts are shown."""
_MOMENT: Final = re.compile(r"(?<=\bat )\d{4}-(0\d|1[0-2])-[0-2]\dT[0-2]\d:[0-5]\d:[0-5]\dZ")
"""When something comes, in a sentence of the operator, such as the next try."""
SILENCE: Final = timedelta(seconds=10)
"""After this long without an answer of the API server the view says so."""


class ScreenState(NamedTuple):
    """Everything that the live view is drawn from."""

    run: FlashRun
    series: MetricSeries
    now: datetime
    activity_since: datetime | None = None
    """When the run was seen to begin what it does now; None if it did so before."""
    answered: datetime | None = None
    """When the API server answered last."""
    problem: str = ""
    """Why it did not answer since; empty while it does."""
    following: bool = True
    """False for the last lines, which stay on the terminal."""


@dataclass(frozen=True)
class Row:
    """One row: a label and a text, with a drawing before it if there is one."""

    label: str
    text: str
    tone: Tone = Tone.PLAIN
    curve: tuple[float, ...] = ()
    done: float | None = None
    """The fraction of a bar that is done."""


class ScreenLine(NamedTuple):
    """One line as it is drawn."""

    text: str
    tone: Tone = Tone.PLAIN


# --- what is shown ------------------------------------------------------------------------------


def screen_rows(state: ScreenState) -> list[Row]:
    """Return the rows about a run. Texts that others wrote are made printable."""
    notices = _notices(state)
    details = [
        *_progress(state),
        *_curves(state),
        *_attempts(state.run.status),
        *_results(state.run, state.now),
    ]
    # A screen is read from its top, and lines that stay from their end.
    middle = [*notices, *details] if state.following else [*details, *notices]
    rows = [
        _title(state.run),
        *_connection(state),
        _phase(state),
        *middle,
        *_next_commands(state),
    ]
    return [replace(row, text=printable_line(row.text)) for row in rows]


def _title(run: FlashRun) -> Row:
    spec = run.spec
    parts = (f"{run.namespace}/{run.name}", spec.algorithm, spec.model, spec.environment.id)
    return Row("", " · ".join(parts), Tone.TITLE)


def _connection(state: ScreenState) -> Iterator[Row]:
    if not state.following or state.answered is None:
        return
    silent = state.now - state.answered
    if state.problem or silent >= SILENCE:
        since = f"no answer from the API server for {_clock(silent)}"
        why = f" ({state.problem})" if state.problem else ""
        yield Row("Connection", f"{since}{why}; trying again, the run is not affected", Tone.BAD)


def _phase(state: ScreenState) -> Row:
    run, status = state.run, state.run.status
    text: str = status.phase
    if status.phase in TERMINAL:
        if run.created is not None and status.completion_time is not None:
            text += f" after {_clock(status.completion_time - run.created)}"
    elif since := phase_start(run):
        text += f" for {_clock(state.now - since)}"
    activity = _activity(status)
    if activity and activity != status.phase:
        text += f" · {activity}"
        if state.activity_since is not None:
            text += f" for {_clock(state.now - state.activity_since)}"
    return Row("Phase", text, formatting.phase_tone(status.phase))


def phase_start(run: FlashRun) -> datetime | None:
    """Return when a run entered its phase, as far as its status says; None when it does not."""
    status = run.status
    ends = [attempt.end for attempt in status.attempts if attempt.end is not None]
    match status.phase:
        case Phase.PENDING:
            return max(ends, default=run.created)
        case Phase.RETRYING:
            return max(ends, default=None)
        case Phase.STARTING:
            starts = [attempt.start for attempt in status.attempts if attempt.start is not None]
            return max([*starts, *ends], default=run.created)
        case _:
            # It says when the trainer began, or when it ended; without an attempt it says neither.
            condition = status.condition(ConditionType.RUNNING)
            return condition.last_transition_time if condition and status.attempts else None


_WITH_POD: Final = (Phase.STARTING, Phase.RETRYING, Phase.RUNNING, Phase.CANCELLING)


def _activity(status: FlashRunStatus) -> str:
    """Return what the pod of a run does; empty while it has none."""
    return status.progress.activity if status.phase in _WITH_POD and status.progress else ""


def current_stage(status: FlashRunStatus) -> tuple[str, str]:
    """Return phase and activity, without how far the activity is: a change begins a new clock."""
    return status.phase, _activity(status).partition(" (")[0]


_TONES: Final = {
    "Failure": Tone.BAD,
    "Waiting": Tone.ACTIVE,
    "Warning": Tone.BAD,
    "Ignored": Tone.BAD,
    "Score": Tone.BAD,
}
"""Tones of the notices that are not plain."""


def _notices(state: ScreenState) -> list[Row]:
    return [
        Row(label, _with_countdown(text, state.now), _TONES.get(label, Tone.PLAIN))
        for label, text in formatting.notice_rows(state.run.status)
    ]


def _with_countdown(text: str, now: datetime) -> str:
    """Return a sentence with how far away its first time is, if that time is still to come."""
    found = _MOMENT.search(text)
    if found is None or (left := datetime.fromisoformat(found[0]) - now) <= timedelta(0):
        return text
    return f"{text[: found.end()]} (in {_clock(left)}){text[found.end() :]}"


def _progress(state: ScreenState) -> Iterator[Row]:
    progress = state.run.status.progress
    if progress is None or not progress.total_steps:
        return
    step = f"{progress.step}/{progress.total_steps} ({progress.percent}%)"
    running = state.run.status.phase is Phase.RUNNING
    if running and progress.eta_seconds is not None:
        step += f" · {formatting.format_duration(progress.eta_seconds)} left"
    yield Row("Step", step, done=progress.step / progress.total_steps)


def _curves(state: ScreenState) -> Iterator[Row]:
    series, evaluated = state.series, state.run.status.evaluation
    name = series.headline
    if name and (curve := series.curve(name)):
        value = f"{curve[-1]:.4g}"
        if name in HEADLINES:
            yield Row(name.capitalize(), value, curve=curve)
        else:
            yield Row("Metric", f"{name} {value}", curve=curve)
    if evaluated is None:
        return
    curve = series.curve(evaluation.metric_key(evaluated.metric))
    yield Row(
        "Held-out", f"{evaluated.metric} {formatting.evaluation_scores(evaluated)}", curve=curve
    )


def _attempts(status: FlashRunStatus) -> Iterator[Row]:
    lines = formatting.attempt_lines(status)
    if len(lines) > _ATTEMPTS:
        yield Row("Attempts", f"{len(lines) - _ATTEMPTS} before these")
    for line in lines[-_ATTEMPTS:]:
        yield Row("Attempt", line)


def _results(run: FlashRun, now: datetime) -> Iterator[Row]:
    status = run.status
    if status.resolved and status.resolved.pool:
        nodes = f" on {status.resolved.nodes} nodes" if status.resolved.nodes > 1 else ""
        used = formatting.format_duration(status.gpu_seconds) if status.gpu_seconds else ""
        time = f", {used} of GPU time" if used else ""
        yield Row("GPU", f"{status.resolved.gpus} of pool {status.resolved.pool}{nodes}{time}")
    if status.checkpoints:
        newest = status.checkpoints[0]
        age = formatting.format_age(newest.created_time, now)
        count = f"{status.checkpoint_count}, newest " if status.checkpoint_count > 1 else ""
        yield Row("Checkpoint", f"{count}{newest.ref} ({age} ago)")
    if status.adapter:
        size = formatting.format_size(status.adapter.bytes)
        yield Row("Adapter", f"{status.adapter.ref} ({size})")


def _next_commands(state: ScreenState) -> Iterator[Row]:
    run, status = state.run, state.run.status
    match status.phase:
        case Phase.SUCCEEDED:
            yield Row("Next", f"flash pull {run.name}", Tone.GOOD)
            evaluated = status.evaluation
            if evaluated and evaluated.best and evaluated.best != evaluated.last:
                yield Row("Next", f"flash pull {run.name} --best", Tone.GOOD)
            yield Row("Next", f"flash rollouts {run.name}{' --eval' if evaluated else ''}")
        case Phase.FAILED:
            yield Row("Next", f"flash log {run.name}")
            if status.checkpoint_count:
                yield Row("Next", f"flash checkpoints {run.name}")
        case Phase.CANCELLED:
            yield Row("Kept", formatting.what_is_kept(run))
        case _:
            if state.following:
                yield Row("", "Ctrl-C leaves the run running", Tone.QUIET)


def _clock(time: timedelta) -> str:
    return formatting.format_duration(time.total_seconds())


# --- how it is drawn ----------------------------------------------------------------------------


def screen_lines(
    rows: Sequence[Row], width: int, height: int | None = None, glyphs: Glyphs = UNICODE
) -> list[ScreenLine]:
    """Return rows as lines of at most ``width`` cells; at most ``height`` lines if it is given.

    The first row is the title. A row that repeats the label of the one above it does not print it
    again. A wide screen has the labels in a column; a narrow one has them in the text, so that
    names of runs stay whole.
    """
    width = min(max(width, _NARROWEST), WIDEST)
    lines: list[ScreenLine] = []
    for above, row in zip([None, *rows], rows, strict=False):
        label = "" if above is not None and above.label == row.label else row.label
        if above is None:
            title = _foldable(row.text, width).translate(glyphs.replaced)
            lines += (ScreenLine(line, row.tone) for line in _wrapped(title, width))
        else:
            lines += _row_lines(replace(row, label=label), width, glyphs)
    if height is not None and len(lines) > height:
        rest = "…".translate(glyphs.replaced)
        lines = [*lines[: max(0, height - 1)], ScreenLine(rest, Tone.QUIET)]
    return lines


def _foldable(title: str, width: int) -> str:
    """Return a title that is folded behind the namespace where both names do not fit."""
    both = title.partition(" ")[0]
    return title if len(both) <= width else title.replace("/", "/ ", 1)


def _row_lines(row: Row, width: int, glyphs: Glyphs) -> Iterator[ScreenLine]:
    margin = _LABEL if width >= _COLUMNS_FROM else 1
    prefix = "" if width >= _COLUMNS_FROM or not row.label else f"{row.label}: "
    space = width - margin
    head = _drawing(row, space, len(prefix), glyphs)
    text = " ".join(filter(None, (head, row.text.translate(glyphs.replaced))))
    for number, line in enumerate(_wrapped(prefix + text, space)):
        label = row.label if number == 0 else ""
        indent = "" if prefix and label else f"{'' if prefix else label:<{margin}}"
        yield ScreenLine(f"{indent}{line}", row.tone)


def _drawing(row: Row, space: int, used: int, glyphs: Glyphs) -> str:
    """Return the bar or the curve of a row; empty when it has none, or a bar has no place."""
    beside = space - used - len(row.text) - 1
    if row.done is not None:
        room = min(beside, _LONGEST_BAR)
        return bar(row.done, room, glyphs) if room >= _SHORTEST_DRAWING else ""
    if len(row.curve) < 2:
        return ""
    room = beside if beside >= min(_SHORTEST_DRAWING, len(row.curve)) else space - used
    return sparkline(row.curve, min(room, _LONGEST_CURVE), glyphs)


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most ``width`` cells; wide characters take two."""
    from rich.text import Text

    lines = Text(text).wrap(_measuring_console(), width, overflow="fold")
    return [line.plain.rstrip() for line in lines]


@functools.cache
def _measuring_console() -> "Console":
    from rich.console import Console

    return Console(file=io.StringIO(), width=WIDEST)
