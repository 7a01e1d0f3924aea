"""A run at one moment, as a program reads it."""

from typing import Any

import pytest

from flashrun.api.resource import CheckpointStatus
from flashrun.client import Checkpoint, RunState
from tests.cli.golden import golden_run
from tests.cli.storage import CREATED, checkpoint

STATES: list[tuple[str, dict[str, Any], tuple[bool, bool], str]] = [
    ("waiting", {}, (False, False), "Pending"),
    ("running", {}, (False, False), "Running"),
    ("succeeded", {}, (True, True), "succeeded. Get the adapter: flash pull"),
    ("failed", {}, (True, False), "failed: "),
    ("running", {"phase": "Cancelled"}, (True, False), "was cancelled"),
]


@pytest.mark.parametrize(("stage", "changes", "flags", "text"), STATES)
def test_a_state_has_one_sentence_for_people(
    stage: str, changes: dict[str, Any], flags: tuple[bool, bool], text: str
) -> None:
    state = RunState(golden_run(stage, **changes))

    assert (state.ended, state.succeeded) == flags
    assert text in state.sentence
    assert str(state) == state.sentence
    assert repr(state) == f"<RunState {state.sentence}>"


def test_a_state_has_the_progress_as_numbers() -> None:
    progress = {"step": 3, "totalSteps": 9, "percent": 33, "metrics": {"loss": "1.50"}}
    state = RunState(golden_run("running", progress=progress))

    assert (state.step, state.total_steps, state.metrics) == (3, 9, {"loss": 1.5})
    assert state.name == state.resource.name


def test_before_the_first_step_the_progress_is_not_known() -> None:
    state = RunState(golden_run("running", progress=None))

    assert (state.step, state.total_steps, state.metrics) == (0, None, {})


@pytest.mark.parametrize(("text", "score"), [({"score": "0.5"}, 0.5), ({}, None)])
def test_a_checkpoint_has_its_score_as_a_number(text: dict[str, str], score: float | None) -> None:
    status = CheckpointStatus.validate_manifest({**checkpoint("run", 5), **text})
    found = Checkpoint.of(status)

    assert (found.ref, found.step, found.bytes, found.score) == ("run/step-5", 5, 2048, score)
    assert f"{found.created:%Y-%m-%dT%H:%M:%SZ}" == CREATED
