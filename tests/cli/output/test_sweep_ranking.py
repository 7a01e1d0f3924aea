"""How the runs of a sweep rank."""

from flashrun.api.resource import FlashRun
from flashrun.cli.output.sweep_ranking import counts_text, ranking_data, ranking_table
from tests.cli.golden import golden_run

RUNS: list[FlashRun] = [golden_run("running"), golden_run("waiting")]
SETTINGS = [{"train.lora_rank": "8"}, {"train.lora_rank": "16", "train.epochs": "2"}]


def test_a_column_shows_each_setting_in_which_runs_differ_and_why_a_run_waits() -> None:
    table = ranking_table(RUNS, SETTINGS)
    assert table.header[4:] == ("train.lora_rank", "train.epochs", "REASON")
    assert [[cell.text for cell in row][4:] for row in table.rows] == [
        ["8", "", ""],
        ["16", "2", "SecretMissing"],
    ]


def test_programs_get_ranks_and_reasons() -> None:
    data = ranking_data(RUNS, SETTINGS)
    assert [item["rank"] for item in data] == [1, 2]
    assert data[1]["reason"] == "SecretMissing"
    assert data[0]["settings"] == {"train.lora_rank": "8"}


def test_the_runs_are_counted_by_what_they_do() -> None:
    assert counts_text(RUNS) == "1 Pending, 1 Running"
