"""What people read about a run, made from the statuses that the golden run goes through."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.api.catalog import Catalog
from flashrun.api.public import PublicPool
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import pod_log
from flashrun.cli.commands import diff, gpus, models
from flashrun.cli.output import formatting, tables
from flashrun.cli.output.tables import Cell, Tone

RUNS = Path(__file__).parents[1] / "runs"
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def run(stage: str, name: str = "sums-grpo", **changes: Any) -> FlashRun:
    """Return a golden run as it is at ``stage``."""
    manifest = yaml.safe_load((RUNS / name / "flashrun.yaml").read_text())
    status = yaml.safe_load((RUNS / name / f"status-{stage}.yaml").read_text())
    return FlashRun.from_manifest({**manifest, "status": {**status, **changes}})


def summary(found: FlashRun) -> dict[str, str]:
    return dict(formatting.summary(found, NOW))


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
    assert formatting.progress_line(found.status).startswith("Running · Training · step 20/40")


def test_a_warning_of_the_trainer_is_told_while_there_is_time() -> None:
    sentence = "Every completion of the last 20 steps got the same reward."
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "TrainingWarning",
        "message": sentence,
        "lastTransitionTime": "2026-11-22T12:00:00Z",
    }

    assert summary(run("running", conditions=[ready]))["Warning"] == sentence
    assert "Warning" not in summary(run("running"))


def test_a_run_on_several_nodes_says_how_many_and_which_pod_failed() -> None:
    told = summary(run("failed", "two-nodes-sft"))

    assert told["GPU"] == "4 of pool nodes on 2 nodes"
    assert told["Attempt"] == "1: DataInvalid on node-1, steps 0 to 20 (Pod pod-2 failed first)"


def test_a_failed_run_says_why_and_what_to_do() -> None:
    found = run("failed")
    told = summary(found)

    assert "The reward raised ZeroDivisionError on every row." in told["Failure"]
    sentence, tone = formatting.outcome(found)
    assert sentence.startswith(f"{found.name} failed: The reward raised ZeroDivisionError")
    assert tone is Tone.BAD


def test_a_run_that_failed_says_how_much_memory_it_had_in_use() -> None:
    failure = {
        "reason": "CudaOutOfMemory",
        "message": "The GPU ran out of memory.",
        "hint": "Lower train.max_length.",
        "peakMemoryBytes": 3 * 2**29,
    }
    told = summary(run("failed", failure=failure))

    assert told["Hint"] == "Lower train.max_length."
    assert told["Peak memory"] == "1.5 GiB"


def test_a_run_that_ended_before_its_first_step_has_no_progress() -> None:
    progress = {"step": 0, "totalSteps": 0, "percent": 0, "activity": "Downloading (3.1 GiB)"}

    assert summary(run("running", progress=progress))["Progress"] == "Downloading (3.1 GiB)"
    assert "Progress" not in summary(run("failed", progress=progress))


def test_a_run_that_succeeded_says_how_to_get_the_adapter() -> None:
    found = run("succeeded")

    assert summary(found)["Adapter"].startswith(found.name)
    assert formatting.outcome(found) == (
        f"{found.name} succeeded. Get the adapter: flash pull {found.name}",
        Tone.GOOD,
    )


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"checkpoints": [], "checkpointCount": 0}, "it had not saved anything yet"),
        ({}, "its 1 checkpoint is kept: flash checkpoints "),
        ({"checkpointCount": 9}, "its 9 checkpoints are kept: flash checkpoints "),
        ({"adapter": {"ref": "x", "bytes": 1}}, "its adapter is kept: flash pull "),
    ],
)
def test_a_cancelled_run_says_what_is_kept(changes: dict[str, Any], kept: str) -> None:
    found = run("running", phase="Cancelled", **changes)

    assert f"was cancelled; {kept}" in formatting.outcome(found)[0]


def test_pipes_get_tabs_and_no_header() -> None:
    table = formatting.runs_table([run("running")], NOW)
    [line] = tables.plain_rows(table)

    assert line.split("\t")[1:4] == ["Running", "20/40", "grpo"]


# --- pools --------------------------------------------------------------------------------------

POOLS = (
    PublicPool(name="l40s", vram=48, gpus_per_node=8),
    PublicPool(name="h100", vram=80, gpus_per_node=2, cost=4),
)


def test_models_say_which_pool_a_run_would_get_and_how_many_of_its_gpus() -> None:
    places = {
        row[0].text: [cell.text for cell in row[-2:]]
        for row in models.models_table(list(Catalog()), POOLS).rows
    }

    assert places["Qwen/Qwen3.5-4B"] == ["1 x l40s (32 GiB)", "1 x l40s (32 GiB)"]
    assert places["Qwen/Qwen3.5-9B"] == ["1 x l40s (48 GiB)", "2 x l40s (80 GiB)"]


def test_a_model_that_no_pool_can_take_says_so() -> None:
    pool = PublicPool(name="l40s", vram=48)
    cells = {row[0].text: row[-1] for row in models.models_table(list(Catalog()), (pool,)).rows}

    assert cells["Qwen/Qwen3.6-35B-A3B"] == Cell("no pool (180 GiB)", Tone.BAD)


def test_without_pools_models_say_what_they_need() -> None:
    row = next(row for row in models.models_table(list(Catalog()), ()).rows if "9B" in row[0].text)

    assert [cell.text for cell in row] == [
        "Qwen/Qwen3.5-9B", "9.7B", "hybrid", "64", "8192", "48 GiB", "80 GiB",
    ]  # fmt: skip


def test_gpus_that_were_not_counted_are_a_question_mark() -> None:
    counted = PublicPool(name="h100", vram=80, gpus_per_node=8, total=16, free=0, cost=4)
    rows = gpus.pools_table((counted, PublicPool(name="l40s", vram=48))).rows

    assert [[cell.text for cell in row] for row in rows] == [
        ["h100", "80", "8", "16", "0", "4"],
        ["l40s", "48", "1", "?", "?", "1"],
    ]


# --- two runs -----------------------------------------------------------------------------------


def test_a_run_does_not_differ_from_itself() -> None:
    found = diff.flat_settings(run("running"))

    assert diff.differences(found, found) == {}


def test_what_was_given_and_what_the_recipe_fills_in_are_the_same_value() -> None:
    old = run("running")
    knobs = old.spec.train.model_copy(update={"kl_penalty_coef": 0.0})
    new = old.model_copy(update={"spec": old.spec.model_copy(update={"train": knobs})})

    assert old.spec.train.kl_penalty_coef is None
    assert diff.differences(diff.flat_settings(old), diff.flat_settings(new)) == {}


def test_runs_differ_in_what_was_given_and_in_what_the_platform_chose() -> None:
    old = run("running")
    spec = old.spec.model_copy(update={"train": old.spec.train.model_copy(update={"steps": 7})})
    chosen = old.status.resolved.model_copy(update={"pool": "other"})  # type: ignore[union-attr]
    status = old.status.model_copy(update={"resolved": chosen})
    new = old.model_copy(update={"spec": spec, "status": status})

    assert diff.differences(diff.flat_settings(old), diff.flat_settings(new)) == {
        "train.steps": (diff.flat_settings(old)["train.steps"], 7),
        "platform.pool": (old.status.resolved.pool, "other"),  # type: ignore[union-attr]
    }


# --- the rest of a log --------------------------------------------------------------------------

LOGS = [
    ("nothing was shown", [], ["a", "b"], ["a", "b"]),
    ("some was shown", ["a", "b"], ["a", "b", "c"], ["c"]),
    ("all was shown", ["b", "c"], ["a", "b", "c"], []),
    ("a line comes twice", ["x", "a"], ["a", "x", "a", "y"], ["y"]),
    ("its beginning was cut off in storage", ["b"], ["(left out)", "b", "c"], ["c"]),
    ("it is another log", ["z"], ["a", "b"], ["a", "b"]),
]


@pytest.mark.parametrize(
    ("shown", "stored", "rest"), [case[1:] for case in LOGS], ids=[case[0] for case in LOGS]
)
def test_storage_goes_on_after_what_was_shown(
    shown: list[str], stored: list[str], rest: list[str]
) -> None:
    assert list(pod_log.lines_after(stored, shown)) == rest


def test_a_second_reading_brings_only_what_is_new() -> None:
    recent = pod_log.RecentLines()
    first = [f"2026-11-22T12:00:0{second}.5Z {second}" for second in range(6)]
    assert all(map(recent.is_new, first))

    recent.begin_reading()
    again = [line for line in first if line >= f"{recent.since:%Y-%m-%dT%H:%M:%S}"]
    late = "2026-11-22T12:00:04.1Z late, from the other stream"
    new = "2026-11-22T12:00:06.0Z new"

    assert [line for line in [*again[:1], late, *again[1:], new, new] if recent.is_new(line)] == [
        late, new, new,
    ]  # fmt: skip
