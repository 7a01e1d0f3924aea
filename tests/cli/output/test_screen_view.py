"""The live view as it is drawn: with rich, on a terminal that a test reads."""

import io

import pytest
from rich.console import Console
from rich.live import Live

from flashrun.cli.output.screen_view import ScreenView
from tests.cli.golden import golden_run
from tests.cli.storage import metrics_rows


class Screen:
    """A view on a terminal of this size."""

    def __init__(self, width: int = 80, height: int = 30, *, leaves_answer: bool = True) -> None:
        self.console = Console(
            file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height
        )
        live = Live(console=self.console, screen=True, auto_refresh=False, redirect_stdout=False)
        self.view = ScreenView(live, leaves_answer=leaves_answer)
        live.start()

    def drawn(self) -> list[str]:
        """Return the lines of the newest drawing."""
        written = self.console.file
        assert isinstance(written, io.StringIO)
        return [line.rstrip() for line in written.getvalue().rpartition("\x1b[H")[2].split("\n")]


def test_a_drawing_fills_the_window_and_no_more() -> None:
    screen = Screen(34, 8)
    screen.view.show_status(golden_run("running"))

    lines = screen.drawn()
    assert len(lines) == 8
    assert lines[-1] == "…"
    assert max(map(len, lines)) <= 34


def test_nothing_is_drawn_before_the_first_status() -> None:
    screen = Screen()
    screen.view.redraw()
    screen.view.show_notice("lost")
    screen.view.show_metrics(metrics_rows({1: {"loss": 1.0}}), from_start=True)
    screen.view.print_last_lines()

    assert screen.drawn()[0].endswith("\x1b[?25l")  # only the cursor is hidden


def test_values_from_storage_are_drawn_at_once() -> None:
    screen = Screen()
    screen.view.show_status(golden_run("running"))
    screen.view.show_metrics(metrics_rows({1: {"loss": 3.0}, 10: {"loss": 2.0}}), from_start=True)
    assert "Loss        █▃▁ 1.5" in screen.drawn()

    screen.view.show_metrics(metrics_rows({15: {"loss": 1.75}}), from_start=False)
    assert "Loss        █▃▂▁ 1.5" in screen.drawn()


def test_a_notice_is_shown_until_the_next_status() -> None:
    screen = Screen(200)
    screen.view.show_status(golden_run("running"))
    screen.view.show_notice("Cannot connect")
    assert any("Cannot connect" in line for line in screen.drawn())

    screen.view.show_status(golden_run("running"))
    assert not any("Cannot connect" in line for line in screen.drawn())


def test_a_new_activity_has_a_clock() -> None:
    screen = Screen()
    for activity in ("Downloading (1.0 GiB)", "Downloading (2.0 GiB)", "Installing"):
        progress = {"step": 0, "totalSteps": 0, "percent": 0, "activity": activity}
        screen.view.show_status(golden_run("running", progress=progress))
        clocks = [" for 0s" in line for line in screen.drawn() if activity in line]
        assert clocks == [activity == "Installing"]


@pytest.mark.parametrize("leaves_answer", [True, False])
def test_the_last_lines_are_printed_where_they_are_the_answer(
    capsys: pytest.CaptureFixture[str], leaves_answer: bool
) -> None:
    run = golden_run("succeeded")
    screen = Screen(leaves_answer=leaves_answer)
    screen.view.show_status(run)
    screen.view.print_last_lines()

    printed = capsys.readouterr().out.splitlines()
    assert (f"Next        flash pull {run.name}" in printed) == leaves_answer
    assert "Ctrl-C leaves the run running" not in " ".join(printed)
