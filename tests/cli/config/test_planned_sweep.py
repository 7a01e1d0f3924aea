"""The runs of a sweep as they are listed before they run."""

import json
from pathlib import Path

import pytest

from flashrun.cli.config.planned_sweep import print_planned
from flashrun.cli.config.sweep_file import read_sweep
from flashrun.cli.output.output_format import OutputFormat
from tests.cli.shell import REFERENCE


def test_runs_are_listed_with_their_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text(REFERENCE)
    file = tmp_path / "epochs.toml"
    file.write_text('config = "config.toml"\n[grid]\ntrain.epochs = [1, 2]\n')
    sweep = read_sweep(file)

    print_planned(sweep, OutputFormat.TABLE)
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows == [[run.name, " ".join(run.sets)] for run in sweep.runs]

    print_planned(sweep, OutputFormat.JSON)
    answer = json.loads(capsys.readouterr().out)
    assert answer["sweep"] == {"name": "epochs"}
    assert [run["sets"] for run in answer["runs"]] == [["train.epochs=1"], ["train.epochs=2"]]
