"""Tables in a pipe."""

from flashrun.cli.output import formatting, tables
from tests.cli.golden import NOW, golden_run


def test_pipes_get_tabs_and_no_header() -> None:
    table = formatting.runs_table([golden_run("running")], NOW)
    [line] = tables.plain_rows(table)

    assert line.split("\t")[1:4] == ["Running", "20/40", "grpo"]
