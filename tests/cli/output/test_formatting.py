"""The text that people read about a run, from the statuses of the golden runs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flashrun.api.resource import FlashRun
from flashrun.cli.output import formatting
from flashrun.cli.output.tables import Tone
from tests.cli.golden import NOW, golden_run


def summary(found: FlashRun) -> dict[str, str]:
    return dict(formatting.summary(found, NOW))


def test_a_waiting_run_says_what_it_waits_for() -> None:
    told = summary(golden_run("waiting"))

    assert told["Phase"] == "Pending"
    assert "SERVICE_API_KEY" in told["Waiting"]
    assert "Failure" not in told


def test_a_running_run_shows_progress_and_what_it_got() -> None:
    found = golden_run("running")
    told = summary(found)

    assert told["Progress"].startswith("Training · step 20/40 (50%) · loss 1.5")
    assert told["GPU"].startswith("1 of pool ")
    assert told["Checkpoints"] == f"1, newest {found.name}/step-10"
    assert formatting.progress_line(found.status).startswith("Running · Training · step 20/40")


def test_a_warning_of_the_trainer_is_shown_while_the_run_goes_on() -> None:
    sentence = "Every completion of the last 20 steps got the same reward."
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "TrainingWarning",
        "message": sentence,
        "lastTransitionTime": "2026-11-22T12:00:00Z",
    }

    assert summary(golden_run("running", conditions=[ready]))["Warning"] == sentence
    assert "Warning" not in summary(golden_run("running"))


def test_weights_and_biases_that_is_off_is_shown_with_the_reason() -> None:
    condition = {
        "type": "MetricsSent",
        "status": "False",
        "reason": "WandbOff",
        "message": "CommError: no such team",
        "lastTransitionTime": "2026-11-22T12:00:00Z",
    }

    told = summary(golden_run("running", conditions=[condition]))["W&B"]
    assert told == "off: CommError: no such team (WandbOff)"
    on = condition | {"status": "True", "reason": "WandbOn", "message": ""}
    assert "W&B" not in summary(golden_run("running", conditions=[on]))


def test_a_run_on_several_nodes_says_how_many_and_which_pod_failed() -> None:
    told = summary(golden_run("failed", "two-nodes-sft"))

    assert told["GPU"] == "4 of pool nodes on 2 nodes"
    assert told["Attempt"] == "1: DataInvalid on node-1, steps 0 to 20 (Pod pod-2 failed first)"


def test_a_failed_run_says_why_and_what_to_do() -> None:
    found = golden_run("failed")
    told = summary(found)

    assert "The reward raised ZeroDivisionError on every row." in told["Failure"]
    sentence, tone = formatting.outcome(found)
    assert sentence.startswith(f"{found.name} failed: The reward raised ZeroDivisionError")
    assert tone is Tone.BAD


@pytest.mark.parametrize(
    ("hint", "ending"),
    [
        ("set it in [environment.params]", "KeyError: 'x'. Set it in [environment.params]."),
        ("flash log RUN has the traceback", "KeyError: 'x'. flash log RUN has the traceback."),
        ("train.max_length is too high", "KeyError: 'x'. train.max_length is too high."),
        ("", "KeyError: 'x'."),
    ],
)
def test_message_and_hint_are_sentences_of_their_own(hint: str, ending: str) -> None:
    failure = {"reason": "EnvironmentFailed", "message": "KeyError: 'x'", "hint": hint}
    found = golden_run("failed", failure=failure)

    assert formatting.outcome(found)[0] == f"{found.name} failed: {ending}"


def test_a_run_that_failed_says_how_much_memory_it_had_in_use() -> None:
    failure = {
        "reason": "CudaOutOfMemory",
        "message": "The GPU ran out of memory.",
        "hint": "Lower train.max_length.",
        "peakMemoryBytes": 3 * 2**29,
    }
    told = summary(golden_run("failed", failure=failure))

    assert told["Hint"] == "Lower train.max_length."
    assert told["Peak memory"] == "1.5 GiB"


def test_a_run_that_ended_before_its_first_step_has_no_progress() -> None:
    progress = {"step": 0, "totalSteps": 0, "percent": 0, "activity": "Downloading (3.1 GiB)"}

    assert summary(golden_run("running", progress=progress))["Progress"] == "Downloading (3.1 GiB)"
    assert "Progress" not in summary(golden_run("failed", progress=progress))


def test_a_run_that_succeeded_says_how_to_get_the_adapter() -> None:
    found = golden_run("succeeded")

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
    found = golden_run("running", phase="Cancelled", **changes)

    assert f"was cancelled; {kept}" in formatting.outcome(found)[0]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 * 2**20, "5.0 MiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_sizes_read_well(count: int, text: str) -> None:
    assert formatting.format_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (59, "59s"), (60, "1m0s"), (3599, "59m59s"), (3600, "1h0m"), (90000, "1d1h")],
)
def test_durations_read_well(seconds: int, text: str) -> None:
    assert formatting.format_duration(seconds) == text


def test_an_age_counts_from_now() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)

    assert formatting.format_age(now - timedelta(hours=2), now) == "2h0m"
    assert formatting.format_age(None, now) == ""


# --- evaluation -----------------------------------------------------------------------------------


def evaluated(metric: str, best: str | None, name: str = "flash-1-a") -> FlashRun:
    """A run whose best checkpoint has this score."""
    point = None if best is None else {"step": 10, "score": best}
    found = golden_run("running", "evaluated-sft", evaluation={"metric": metric, "best": point})
    return found.replace(name=name)


def test_scores_before_during_and_at_the_best_step_are_one_line() -> None:
    run = golden_run("succeeded", "evaluated-sft")

    assert summary(run)["Evaluation"] == (
        "exact 0.4219 before training, 0.3125 at step 40, 0.4375 at step 10 (best) "
        "(32 examples, 1 without a score)"
    )


POINTS = [
    ({"baseline": (0, "0.2")}, "score 0.2 before training"),
    ({"baseline": (0, "0.2"), "last": (0, "0.2")}, "score 0.2 before training"),
    ({"baseline": (0, "0.2"), "last": (10, "0.4"), "best": (10, "0.4")},
     "score 0.2 before training, 0.4 at step 10 (best)"),
    ({"last": (20, "0.4"), "best": (10, "0.4")},
     "score 0.4 at step 20, 0.4 at step 10 (best)"),
]  # fmt: skip


@pytest.mark.parametrize(("points", "line"), POINTS)
def test_a_step_is_named_once(points: dict[str, tuple[int, str]], line: str) -> None:
    found = {key: {"step": step, "score": score} for key, (step, score) in points.items()}
    run = golden_run("running", evaluation={"metric": "score", "examples": 8, **found})

    assert summary(run)["Evaluation"] == f"{line} (8 examples)"


def test_a_run_that_got_worse_says_so_in_status_and_at_its_end() -> None:
    run = golden_run("succeeded", "evaluated-sft")
    text, tone = formatting.outcome(run)

    assert "fell from 0.4219 before training to 0.3125" in summary(run)["Score"]
    assert text.endswith(f"flash pull {run.name} --best.")
    assert tone is Tone.PLAIN


def test_a_run_that_is_not_evaluated_has_no_line_about_it() -> None:
    assert not {"Evaluation", "Score"} & summary(golden_run("succeeded")).keys()


def test_the_progress_line_has_the_last_score() -> None:
    run = golden_run("running", "evaluated-sft")

    assert "held-out exact 0.4062" in formatting.progress_line(run.status)


def test_checkpoints_show_scores_and_which_is_the_best() -> None:
    run = golden_run("running", "evaluated-sft")
    table = formatting.checkpoints_table(run.status.checkpoints, run, NOW)

    assert table.header == ("STEP", "REF", "SCORE", "SIZE", "AGE")
    assert [row[2].text for row in table.rows] == ["0.4062", "0.4375 (best)"]
    assert formatting.checkpoint_lines(run.status.checkpoints) == [
        f"step 20 {run.name}/step-20 score 0.4062",
        f"step 10 {run.name}/step-10 score 0.4375",
    ]


def test_checkpoints_of_a_run_that_is_not_evaluated_have_no_column_of_scores() -> None:
    run = golden_run("running")

    assert "SCORE" not in formatting.checkpoints_table(run.status.checkpoints, run, NOW).header


def test_runs_are_sorted_by_what_can_be_compared() -> None:
    listed = [
        evaluated("score", "0.25", "a"), evaluated("loss", "1.5", "b"),
        evaluated("score", None, "c"), evaluated("score", "1e-05", "d"),
        evaluated("exact", "0.9", "e"), evaluated("loss", "0.5", "f"),
        evaluated("score", "0.75", "g"), golden_run("running"),
    ]  # fmt: skip
    ordered = [run.name for run in formatting.best_first(listed)]

    assert ordered[:6] == ["g", "a", "d", "e", "f", "b"]
    assert set(ordered[6:]) == {"c", golden_run("running").name}


def test_a_score_in_the_list_of_runs_names_its_metric() -> None:
    listed = [evaluated("score", "0.25"), evaluated("loss", "1.5"), golden_run("running")]
    table = formatting.runs_table(listed, NOW)

    assert [row[-1].text for row in table.rows] == ["0.25", "loss 1.5", ""]
