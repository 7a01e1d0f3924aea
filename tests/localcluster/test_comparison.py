"""The table at the end of the demo, from the evaluations of its runs."""

import json
from typing import Any

import pytest

from localcluster import comparison
from localcluster.steps import FatalError


def answer(example: str, completion: str, right: float = 0.0, form: float = 0.0) -> dict[str, Any]:
    question = [{"role": "system", "content": "Number only."}, {"role": "user", "content": example}]
    return {
        "step": 24,
        "prompt": question,
        "completion": completion,
        "example": f"row {example}",
        "score": right,
        "metrics": {"format": form, "accuracy": right},
    }


STAGES = {
    "base": [answer("1 + 2", "The sum of 1 and 2\nis 3, as it is"), answer("3 + 4", "8 is")],
    "SFT": [answer("3 + 4", "7", 1.0, 1.0), answer("1 + 2", "4", 0.0, 1.0)],
}


def test_the_table_has_a_column_for_each_stage_and_the_answers_to_one_example_in_a_row() -> None:
    assert comparison.table(STAGES).splitlines() == [
        "2 held-out examples  base                          SFT",
        "format               0.00                          1.00",
        "accuracy             0.00                          0.50",
        "1 + 2                The sum of 1 and 2 is 3, as…  4",
        "3 + 4                8 is                          7",
    ]


def test_answers_are_read_between_the_notes_of_the_command() -> None:
    lines = map(json.dumps, STAGES["SFT"])
    assert comparison.read_answers("\n".join(["note: old", *lines])) == STAGES["SFT"]


def status(score: str | None, step: int = 24) -> str:
    best = {} if score is None else {"best": {"score": score, "step": step}}
    return json.dumps({"status": {"evaluation": {"metric": "accuracy", **best}}})


@pytest.mark.parametrize(
    ("scores", "best"),
    [(("0.4", "0.5"), "grpo"), (("0.4", "0.3"), "sft"), (("0.4", "0.4"), "sft"),
     ((None, "0.1"), "grpo"), (("9e-05", "0.5"), "grpo")],
)  # fmt: skip
def test_the_best_checkpoint_is_that_of_the_highest_score(
    scores: tuple[str | None, str], best: str
) -> None:
    found = comparison.read_best({"sft": status(scores[0]), "grpo": status(scores[1], 8)})

    assert found.run == best
    assert (found.metric, found.step) == ("accuracy", 24 if best == "sft" else 8)


def test_runs_without_an_evaluated_checkpoint_are_named() -> None:
    with pytest.raises(FatalError, match="none of sft has a checkpoint"):
        comparison.read_best({"sft": '{"status": {}}'})
