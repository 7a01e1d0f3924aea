"""What is drawn on a terminal while an exec plugin may ask a person something."""

import io

import pytest
from rich.console import Console
from rich.live import Live

from flashrun.cli.output.giving_way import giving_way
from flashrun.cli.output.run_view import LogView
from flashrun.exec_plugin import DRAWINGS


@pytest.fixture
def live() -> Live:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    return Live(console=console, transient=True, auto_refresh=False)


def written(live: Live) -> str:
    assert isinstance(live.console.file, io.StringIO)
    return live.console.file.getvalue()


def test_lines_of_the_log_wait_until_every_plugin_is_done(live: Live) -> None:
    view = LogView(live)
    with live, giving_way(live, view.print_held):
        [pause] = DRAWINGS
        with pause():
            with pause():
                before = written(live)
                view.show_log_line("first line")
                view.show_notice("a notice")
            assert written(live) == before
        after = written(live).removeprefix(before)
        assert after.index("first line") < after.index("a notice")
        assert live.is_started
    assert DRAWINGS == []


def test_a_plugin_that_ends_after_the_view_does_not_draw_it_again(live: Live) -> None:
    with live, giving_way(live):
        plugin = DRAWINGS[0]()
        plugin.__enter__()
    plugin.__exit__(None, None, None)
    assert not live.is_started
