"""Where a followed run is shown: drawn on a terminal, plain lines in a pipe."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from flashrun.api.reasons import TERMINAL
from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun, ProgressStatus
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.printable_text import printable_line, printable_text

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

STEPS_SECONDS: Final = 5.0
"""Shortest time between two lines about steps in a pipe."""


class RunView(Protocol):
    """Where a followed run is shown."""

    takes_log: bool
    """Whether it has a place for lines of the log."""
    takes_metrics: bool
    """Whether it draws the metrics in storage."""
    leaves_answer: bool
    """Whether its last lines are the answer, so that nothing is printed after them."""

    def show_log_line(self, text: str) -> None:
        """Show one line of the log."""

    def show_status(self, run: FlashRun) -> None:
        """Show the run's phase and progress."""

    def show_metrics(self, rows: Sequence[MetricsRow], *, from_start: bool) -> None:
        """Show rows of the history in storage; ``from_start`` when no earlier ones count."""

    def show_notice(self, text: str) -> None:
        """Show a sentence about following itself."""

    def redraw(self) -> None:
        """Show the same again, with clocks and width as they are now."""


class PlainView:
    """For pipes: the log on standard output, changes of the status on standard error.

    With ``answer_follows`` the log is on standard error, too, as standard output is for the answer.
    """

    takes_log = True
    takes_metrics = False
    leaves_answer = False

    def __init__(self, *, answer_follows: bool = False) -> None:
        self._show_line = terminal.say if answer_follows else terminal.write
        self._last_status: tuple[str, ...] = ()
        self._last_step = 0
        self._last_step_time = 0.0

    def show_log_line(self, text: str) -> None:
        """Print the line."""
        self._show_line(text)

    def show_status(self, run: FlashRun) -> None:
        """Print a line when the status has changed, and for new steps every few seconds."""
        status, progress = run.status, run.status.progress
        activity = progress.activity if progress else ""
        current = (status.phase, activity, status.pending.message if status.pending else "")
        if status.phase in TERMINAL:
            return
        if current != self._last_status or self._step_is_due(progress):
            self._last_status = current
            terminal.say(f"{run.name}: {formatting.progress_line(status)}")

    def _step_is_due(self, progress: ProgressStatus | None) -> bool:
        now = time.monotonic()
        due = self._last_step_time + STEPS_SECONDS
        if not progress or progress.step == self._last_step or now < due:
            return False
        self._last_step, self._last_step_time = progress.step, now
        return True

    def show_metrics(self, rows: Sequence[MetricsRow], *, from_start: bool) -> None:
        """Print nothing."""

    def show_notice(self, text: str) -> None:
        """Print the sentence."""
        terminal.say(text)

    def redraw(self) -> None:
        """Print nothing."""


class LogView:
    """For terminals: the log scrolls above one line with the progress, which is redrawn."""

    takes_log = True
    takes_metrics = False
    leaves_answer = False

    def __init__(self, live: "Live") -> None:
        self._live = live
        self._held: list[Text] = []
        """Lines that came while another program had the terminal."""

    def show_log_line(self, text: str) -> None:
        """Print the line above the progress line."""
        from rich.text import Text

        self._print(Text(printable_text(text)))

    def show_status(self, run: FlashRun) -> None:
        """Redraw the progress line."""
        from rich.spinner import Spinner
        from rich.text import Text

        line = printable_line(formatting.progress_line(run.status))
        self._live.update(Spinner("dots", Text(f"{run.name} · {line}", style="cyan")))

    def show_metrics(self, rows: Sequence[MetricsRow], *, from_start: bool) -> None:
        """Show nothing."""

    def show_notice(self, text: str) -> None:
        """Print the sentence above the progress line."""
        from rich.text import Text

        self._print(Text(printable_line(text), style="dim"))

    def redraw(self) -> None:
        """Do nothing: the line is redrawn all the time."""

    def print_held(self) -> None:
        """Print the lines that came while nothing was drawn."""
        held, self._held = self._held, []
        for text in held:
            self._live.console.print(text)

    def _print(self, text: "Text") -> None:
        if self._live.is_started:
            self._live.console.print(text)
        else:
            self._held.append(text)


class ViewKind(Enum):
    """What a followed run looks like on a terminal."""

    LINE = "line"
    """Its log, above one line with its progress."""
    SCREEN = "screen"
    """One screen about it, without its log."""


def view_kind(logs: bool) -> ViewKind:
    """Return the view of a command, by whether its user asked for the log."""
    return ViewKind.LINE if logs else ViewKind.SCREEN


@contextlib.contextmanager
def open_view(
    output: OutputFormat = OutputFormat.TABLE, kind: ViewKind = ViewKind.LINE
) -> Iterator[RunView]:
    """Yield a view that is drawn on a terminal, a plain one in a pipe.

    An ``output`` for programs is printed when the run has ended; nothing comes before it.
    """
    for_people = output is OutputFormat.TABLE
    if not terminal.draws_in_place():
        yield PlainView(answer_follows=not for_people)
        return
    from rich.live import Live

    from flashrun.cli.output.giving_way import giving_way

    console = terminal.open_console()
    if kind is ViewKind.LINE:
        with Live(console=console, transient=True, refresh_per_second=8) as live:
            log_view = LogView(live)
            try:
                with giving_way(live, log_view.print_held):
                    yield log_view
            finally:
                log_view.print_held()
        return
    from flashrun.cli.output.screen_view import ScreenView

    live = Live(
        console=console,
        screen=True,
        auto_refresh=False,  # following redraws it
        redirect_stdout=False,
        redirect_stderr=False,
    )
    view = ScreenView(live, leaves_answer=for_people)
    try:
        with live, giving_way(live, view.redraw):
            yield view
    finally:
        view.print_last_lines()
