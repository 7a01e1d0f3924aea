"""What people read about a run, made from the statuses that the golden run goes through."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.cli import render
from flashrun.cli.render import Cell, Tone
from flashrun.spec.catalog import Catalog
from flashrun.spec.public import PublicPool
from flashrun.spec.run import FlashRun

FOLDER = Path(__file__).parents[1] / "runs" / "sums-grpo"
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def run(stage: str, **changes: Any) -> FlashRun:
    """Return the golden run as it is at ``stage``."""
    manifest = yaml.safe_load((FOLDER / "flashrun.yaml").read_text())
    status = yaml.safe_load((FOLDER / f"status-{stage}.yaml").read_text())
    return FlashRun.from_manifest({**manifest, "status": {**status, **changes}})


def summary(found: FlashRun) -> dict[str, str]:
    return dict(render.summary(found, NOW))


def test_a_waiting_run_says_what_it_waits_for() -> None:
    told = summary(run("waiting"))

    assert told["Phase"] == "Pending"
    assert "SERVICE_API_KEY" in told["Waiting"]
    assert "Failure" not in told


def test_a_running_run_shows_progress_and_what_it_got() -> None:
    found = run("running")
    told = summary(found)

    assert told["Progress"].startswith("Training · step 20/40 (50%) · loss 1.5")
    assert told["GPU"].startswith("1 of pool ")
    assert told["Checkpoints"] == f"1, newest {found.name}/step-10"
    assert render.progress_line(found.status).startswith("Running · Training · step 20/40")


def test_a_failed_run_says_why_and_what_to_do() -> None:
    found = run("failed")
    told = summary(found)

    assert "The reward raised ZeroDivisionError on every row." in told["Failure"]
    sentence, tone = render.outcome(found)
    assert sentence.startswith(f"{found.name} failed: The reward raised ZeroDivisionError")
    assert tone is Tone.BAD


def test_a_run_that_succeeded_says_how_to_get_the_adapter() -> None:
    found = run("succeeded")

    assert summary(found)["Adapter"].startswith(found.name)
    assert render.outcome(found) == (
        f"{found.name} succeeded. Get the adapter: flash pull {found.name}",
        Tone.GOOD,
    )


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"checkpoints": [], "checkpointCount": 0}, "it had saved nothing yet"),
        ({}, "its 1 checkpoint is kept: flash checkpoints "),
        ({"checkpointCount": 9}, "its 9 checkpoints are kept: flash checkpoints "),
        ({"adapter": {"ref": "x", "bytes": 1}}, "its adapter is kept: flash pull "),
    ],
)
def test_a_cancelled_run_says_what_is_kept(changes: dict[str, Any], kept: str) -> None:
    found = run("running", phase="Cancelled", **changes)

    assert f"was cancelled; {kept}" in render.outcome(found)[0]


def test_pipes_get_tabs_and_no_header() -> None:
    table = render.runs_table([run("running")], NOW)
    [line] = render.plain_rows(table)

    assert line.split("\t")[1:4] == ["Running", "20/40", "grpo"]


def test_models_say_what_fits_the_largest_gpu() -> None:
    pool = PublicPool(name="l40s", vram=48)
    fits = {row[0].text: row[-1] for row in render.models_table(Catalog(), (pool,)).rows}

    assert fits["Qwen/Qwen3.5-4B"] == Cell("sft+grpo", Tone.GOOD)
    assert fits["Qwen/Qwen3.5-9B"] == Cell("sft", Tone.GOOD)
    assert fits["Qwen/Qwen3.6-35B-A3B"] == Cell("none", Tone.BAD)
