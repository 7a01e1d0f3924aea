"""The best checkpoint of a run: which one it is, and what is said when there is none."""

from typing import Any

import pytest

from flashrun.api.names import Ref
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.best_checkpoint import choose_best
from flashrun.cli.output.failure import NotFoundFailure
from tests.cli.golden import golden_run

RUN = golden_run("running", "evaluated-sft")


def configured(**evaluation: Any) -> FlashRun:
    """A run with this ``eval`` table."""
    spec = type(RUN.spec).validate_manifest({**RUN.spec.to_manifest(), "eval": evaluation})
    return RUN.replace(spec=spec)


def test_it_has_the_best_score_after_a_step() -> None:
    best = choose_best(RUN, "score", {0: 0.9, 10: 0.4, 20: 0.6, 30: 0.5}, {10, 20, 30})

    assert best.ref == Ref(RUN.name, 20)
    assert best.sentence == (
        f"{RUN.name}/step-20 is the best of 3 evaluated checkpoints: score 0.6, before training "
        "0.9; no checkpoint is better than before training"
    )


def test_a_smaller_loss_is_better() -> None:
    best = choose_best(RUN, "loss", {0: 2.0, 10: 1.5, 20: 1.75}, {10, 20})

    assert best.sentence == (
        f"{RUN.name}/step-10 is the best of 2 evaluated checkpoints: loss 1.5, before training 2"
    )


def test_the_score_before_training_may_be_unknown() -> None:
    best = choose_best(RUN, "score", {10: 0.5}, {10})

    assert best.sentence == f"{RUN.name}/step-10 is the best of 1 evaluated checkpoint: score 0.5"


NONE = [
    ("no split", {}, {}, "add dataset/eval.jsonl to its environment, or name a split in [eval]"),
    ("turned off", {"enabled": False}, {}, "its config turns evaluation off"),
    ("no save yet", {}, {0: 0.5}, "it was evaluated before training only"),
]


@pytest.mark.parametrize(
    ("evaluation", "scores", "hint"), [row[1:] for row in NONE], ids=[row[0] for row in NONE]
)
def test_a_run_without_evaluated_checkpoints_says_what_to_do(
    evaluation: dict[str, Any], scores: dict[int, float], hint: str
) -> None:
    with pytest.raises(NotFoundFailure, match=r"no checkpoint of .* was evaluated") as caught:
        choose_best(configured(**evaluation), "score", scores, {10})

    assert hint in caught.value.hint


GONE = [
    ("another is left", {10, 30}, "the best one that is left has score 0.5: flash pull {}/step-30"),
    ("one without a score is left", {40}, "flash checkpoints {} lists what is left"),
    ("nothing is left", set(), "flash checkpoints {} lists what is left"),
]


@pytest.mark.parametrize(
    ("committed", "hint"), [row[1:] for row in GONE], ids=[row[0] for row in GONE]
)
def test_a_best_checkpoint_that_was_deleted_is_not_replaced_silently(
    committed: set[int], hint: str
) -> None:
    with pytest.raises(NotFoundFailure, match=r"is step-20 with score 0\.6, and it is") as caught:
        choose_best(RUN, "score", {10: 0.4, 20: 0.6, 30: 0.5}, committed)

    assert caught.value.hint == hint.format(RUN.name)
