"""Tables in a pipe, and on terminals of all widths."""

import pytest

from flashrun.cli.output import formatting, tables
from tests.cli.golden import NOW, golden_run


def test_pipes_get_tabs_and_no_header() -> None:
    table = formatting.runs_table([golden_run("running")], NOW)
    [line] = tables.plain_rows(table)

    assert line.split("\t")[1:4] == ["Running", "20/40", "grpo"]


def test_no_cell_of_a_pipe_ends_early() -> None:
    text = "a\tb\nc\r\u2028d"

    [line] = tables.plain_rows(tables.Table(("X", "Y"), ((tables.Cell(text), tables.Cell("e")),)))

    assert line == "a b c  d\te"


WIDTHS = [
    (200, "RUN PHASE STEP ALGORITHM MODEL POOL AGE SCORE"),
    (88, "RUN PHASE STEP ALGORITHM MODEL AGE SCORE"),
    (60, "RUN PHASE STEP AGE SCORE"),
    (45, "RUN PHASE SCORE"),
    (34, "RUN PHASE"),
    (1, "RUN PHASE"),
]


@pytest.mark.parametrize(("width", "columns"), WIDTHS)
def test_a_narrow_terminal_gets_fewer_columns(width: int, columns: str) -> None:
    table = formatting.runs_table([golden_run("running")], NOW).fitted(width)

    assert table.header == tuple(columns.split())
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert table.width <= width or len(table.header) == 2


FOLDED = [
    (80, "KEY TYPE MEANING"),
    (28, "KEY TYPE MEANING"),
    (27, "KEY TYPE"),
    (20, "KEY TYPE"),
    (19, "KEY"),
    (1, "KEY"),
]


@pytest.mark.parametrize(("width", "columns"), FOLDED)
def test_columns_that_a_short_word_does_not_fit_are_left_out(width: int, columns: str) -> None:
    row = ("environment.id", "text", "Where the data comes from.")
    table = tables.Table(("KEY", "TYPE", "MEANING"), (tuple(map(tables.Cell, row)),)).fitted(width)

    assert table.header == tuple(columns.split())
    assert table.rows[0][0].text == "environment.id"
