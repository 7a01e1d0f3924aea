"""The live view of a run on a terminal's other screen; what it shows is in ``live_screen``."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun
from flashrun.cli.output import terminal
from flashrun.cli.output.live_screen import (
    ScreenLine,
    ScreenState,
    current_stage,
    screen_lines,
    screen_rows,
)
from flashrun.cli.output.metric_series import MetricSeries
from flashrun.cli.output.sparkline import glyphs_for

if TYPE_CHECKING:
    from rich.live import Live


class ScreenView:
    """For terminals: one screen about the run, which is drawn again every second.

    It is drawn on the terminal's other screen, where a window that becomes narrower or wider leaves
    nothing behind. When following ends, the lines are printed where the user was before.
    """

    takes_log = False
    takes_metrics = True

    def __init__(self, live: "Live", *, leaves_answer: bool = True) -> None:
        self._live = live
        self.leaves_answer = leaves_answer
        self._series = MetricSeries()
        self._state: ScreenState | None = None

    def show_log_line(self, text: str) -> None:
        """Show nothing: ``flash log`` has the lines."""

    def show_status(self, run: FlashRun) -> None:
        """Draw the run as it is now."""
        now, before = datetime.now(UTC), self._state
        since = before.activity_since if before is not None else None
        if before is not None and current_stage(run.status) != current_stage(before.run.status):
            since = now
        self._series.add_status(run.status)
        self._state = ScreenState(run, self._series, now, activity_since=since, answered=now)
        self.redraw()

    def show_metrics(self, rows: Sequence[MetricsRow], *, from_start: bool) -> None:
        """Draw the curves with more values."""
        if from_start:
            self._series.replace_rows(rows)
        else:
            self._series.add_rows(rows)
        self.redraw()

    def show_notice(self, text: str) -> None:
        """Show why the API server does not answer, until it does."""
        if self._state is not None:
            self._state = self._state._replace(problem=text)
        self.redraw()

    def redraw(self) -> None:
        """Draw the same again, with clocks and width as they are now.

        Nothing is drawn while another program has the terminal.
        """
        if self._state is None or not self._live.is_started:
            return
        from rich.text import Text

        console = self._live.console
        lines = self._lines(self._state._replace(now=datetime.now(UTC)), console.height)
        text = Text(no_wrap=True, overflow="crop")
        for number, line in enumerate(lines):
            text.append("\n" * bool(number))
            text.append(line.text, terminal.STYLES[line.tone])
        self._live.update(text, refresh=True)

    def print_last_lines(self) -> None:
        """Print what is known of the run as lines that stay, if they are the answer."""
        if self.leaves_answer and self._state is not None:
            for line in self._lines(self._state._replace(now=datetime.now(UTC), following=False)):
                terminal.write(line.text, line.tone)

    def _lines(self, state: ScreenState, height: int | None = None) -> list[ScreenLine]:
        console = self._live.console
        rows = [replace(row, text=terminal.as_typed(row.text)) for row in screen_rows(state)]
        return screen_lines(rows, console.width, height, glyphs_for(console.encoding))
