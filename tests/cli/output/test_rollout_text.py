"""A rollout as text, whatever the environment and the model wrote."""

from typing import Any

import pytest

from flashrun.cli.output.rollout_text import rollout_text
from tests.cli.output.hostile import HOSTILE

PARTS = [{"type": "text", "text": "1 + "}, {"type": "text", "text": "2"}]
ROW: dict[str, Any] = {
    "step": 40,
    "prompt": [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": PARTS},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]},
    ],
    "completion": "The sum\nis 3.",
    "example": "row 7",
    "score": 0.25,
    "reward": 0.2,
    "metrics": {"exact": 0.0},
}


def test_a_rollout_shows_scores_prompt_and_completion() -> None:
    assert (
        rollout_text(ROW, 1, 5)
        == """\
──────── 1 of 5 · step 40 · row 7 · score 0.25 · reward 0.2 · exact 0 ────────
system
  Add.
user
  1 + 2
assistant
  tool_calls: [{"name": "add"}]
→ completion
  The sum
  is 3.
"""
    )


def test_a_rollout_without_a_score_shows_the_error() -> None:
    row = {**ROW, "score": None, "reward": None, "metrics": {}, "error": "ValueError:\nbad"}

    assert "score none · reward none · error: ValueError: bad" in rollout_text(row, 1, 1)


@pytest.mark.parametrize(("hostile", "shown"), HOSTILE)
def test_text_of_a_model_cannot_steer_the_terminal(hostile: str, shown: str) -> None:
    row = {"prompt": hostile, "completion": hostile, "error": hostile, "metrics": {hostile: 1}}
    text = rollout_text(row, 1, 1)

    assert text.replace("\n", "").replace("\t", "").isprintable()
    assert " ".join(shown.split()) in " ".join(text.split())


ODD = [
    {},
    {"prompt": None, "completion": None, "metrics": None},
    {"prompt": "text", "completion": ["a"], "metrics": [1], "score": "high"},
    {"prompt": [1, {"content": [{"type": "image"}]}, {}], "example": {"a": 1}, "step": "x"},
]


@pytest.mark.parametrize("row", ODD, ids=str)
def test_a_row_of_another_form_is_shown_as_far_as_it_goes(row: dict[str, Any]) -> None:
    assert rollout_text(row, 2, 3).startswith("──────── 2 of 3")
