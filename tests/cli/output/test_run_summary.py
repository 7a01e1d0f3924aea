"""One run as an answer, in each format."""

import json
from typing import Any

import pytest
import yaml

from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.run_summary import print_run
from tests.cli.golden import RUNS, golden_run

MANIFEST: dict[str, Any] = yaml.safe_load((RUNS / "sums-grpo" / "flashrun.yaml").read_text())


def printed(output: OutputFormat, capsys: pytest.CaptureFixture[str]) -> str:
    print_run(golden_run("running"), MANIFEST, output)
    return capsys.readouterr().out


def test_programs_get_the_manifest_as_the_api_server_has_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert json.loads(printed(OutputFormat.JSON, capsys)) == MANIFEST
    assert yaml.safe_load(printed(OutputFormat.YAML, capsys)) == MANIFEST


def test_a_script_gets_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    run = golden_run("running")
    assert printed(OutputFormat.NAME, capsys) == f"{run.name}\n"


def test_people_get_one_line_per_fact(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(OutputFormat.TABLE, capsys).splitlines()
    labels = [line.partition(":")[0] for line in lines]
    assert labels[0] == "Run"
    assert "Phase" in labels
    assert "Running" in lines[labels.index("Phase")]
