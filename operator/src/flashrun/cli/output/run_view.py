"""Where a followed run is shown: a live line on a terminal, plain lines in a pipe."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

from flashrun.api.reasons import TERMINAL
from flashrun.api.resource import FlashRun, ProgressStatus
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat

if TYPE_CHECKING:
    from rich.live import Live

STEPS_SECONDS: Final = 5.0
"""Shortest time between two lines about steps in a pipe."""


class RunView(Protocol):
    """Where a followed run is shown."""

    def show_log_line(self, text: str) -> None:
        """Show one line of the log."""

    def show_status(self, run: FlashRun) -> None:
        """Show the run's phase and progress."""

    def show_notice(self, text: str) -> None:
        """Show a sentence about following itself."""


class PlainView:
    """For pipes: the log on standard output, changes of the status on standard error.

    With ``answer_follows`` the log is on standard error, too, as standard output is for the answer.
    """

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

    def show_notice(self, text: str) -> None:
        """Print the sentence."""
        terminal.say(text)


class LiveView:
    """For terminals: the log scrolls above one line with the progress, which is redrawn."""

    def __init__(self, live: "Live") -> None:
        self._live = live

    def show_log_line(self, text: str) -> None:
        """Print the line above the progress line."""
        from rich.text import Text

        self._live.console.print(Text.from_ansi(text))

    def show_status(self, run: FlashRun) -> None:
        """Redraw the progress line."""
        from rich.spinner import Spinner
        from rich.text import Text

        text = Text(f"{run.name} · {formatting.progress_line(run.status)}", style="cyan")
        self._live.update(Spinner("dots", text))

    def show_notice(self, text: str) -> None:
        """Print the sentence above the progress line."""
        from rich.text import Text

        self._live.console.print(Text(text, style="dim"))


@contextlib.contextmanager
def open_view(output: OutputFormat = OutputFormat.TABLE) -> Iterator[RunView]:
    """Yield a live view on a terminal, a plain one in a pipe.

    An ``output`` for programs is printed when the run has ended; nothing comes before it.
    """
    if not terminal.is_terminal():
        yield PlainView(answer_follows=output is not OutputFormat.TABLE)
        return
    from rich.live import Live

    with Live(console=terminal.open_console(), transient=True, refresh_per_second=8) as live:
        yield LiveView(live)
