"""Tables in a pipe."""

import pytest

from flashrun.cli.output import formatting, tables
from tests.cli.golden import NOW, golden_run


def test_pipes_get_tabs_and_no_header() -> None:
    table = formatting.runs_table([golden_run("running")], NOW)
    [line] = tables.plain_rows(table)

    assert line.split("\t")[1:4] == ["Running", "20/40", "grpo"]


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
