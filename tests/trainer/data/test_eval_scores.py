"""The metrics of an evaluation, and how the evaluations of a run compare."""

from itertools import combinations

import pytest

from flashrun_trainer.data.eval_scores import (
    RowResult,
    compare_evaluations,
    evaluation_metrics,
    pass_probability,
    prefix_metrics,
)
from flashrun_trainer.data.rewards import Score


def row(*rewards: float | None, **more: float) -> RowResult:
    """An example whose answers have these scores; None is one that could not be judged."""
    scores = tuple(
        Score(error="no judge")
        if reward is None
        else Score(reward, {"digits": reward / 2}, success=reward >= 1)
        for reward in rewards
    )
    return RowResult(scores, ("answer",) * len(scores), **more)  # type: ignore[arg-type]


def test_means_are_over_the_examples_that_could_be_judged():
    metrics = evaluation_metrics([row(1.0), row(None), row(0.0)])
    assert metrics == {"score": 0.5, "digits": 0.25, "examples": 3, "unscored": 1}


def test_every_example_counts_the_same_however_many_of_its_answers_were_judged():
    metrics = evaluation_metrics([row(1.0, 1.0), row(0.0, None)])
    assert metrics["score"] == 0.5
    assert metrics["unscored"] == 1


def test_an_evaluation_that_nobody_could_judge_has_no_score():
    assert evaluation_metrics([row(None)]) == {"examples": 1, "unscored": 1}


def test_loss_and_accuracy_are_over_the_tokens_of_all_examples():
    metrics = evaluation_metrics([row(loss=6.0, tokens=2, correct=2), row(loss=2.0, tokens=6)])
    assert metrics == {"loss": 1.0, "token_accuracy": 0.25, "examples": 2, "unscored": 0}


def test_metrics_of_the_environment_do_not_hide_those_of_the_evaluation():
    odd = RowResult((Score(1.0, {"score": 7.0, "loss": 7.0, "pass@2": 7.0, "unscored": 7.0}),))
    assert evaluation_metrics([odd]) == {"score": 1.0, "examples": 1, "unscored": 0}


@pytest.mark.parametrize(("answers", "right", "attempts"), [(5, 2, 1), (5, 2, 3), (4, 0, 2)])
def test_pass_at_k_is_the_share_of_choices_with_a_right_answer(
    answers: int, right: int, attempts: int
):
    choices = list(combinations([True] * right + [False] * (answers - right), attempts))
    share = sum(map(any, choices)) / len(choices)
    assert pass_probability(answers, right, attempts) == pytest.approx(share)


def test_several_answers_give_pass_at_powers_of_two_and_at_their_number():
    metrics = evaluation_metrics([row(1, 0, 0, 0, 0), row(0, 0, 0, 0, None)])
    assert {name: value for name, value in metrics.items() if "pass" in name} == {
        "pass@1": pytest.approx(0.1),
        "pass@2": pytest.approx(0.2),
        "pass@4": pytest.approx(0.4),
        "pass@5": 1.0,  # only one example has five judged answers
    }


def values_of(results: list[RowResult], levels: list[int], metric: str = "score"):
    metrics = {f"eval/{name}": value for name, value in evaluation_metrics(results).items()}
    return metrics | prefix_metrics(results, levels, metric)


LEVELS = [4, 2]


def test_evaluations_are_compared_over_the_examples_that_all_of_them_have():
    """The whole baseline is better than the second evaluation, and the part that counts is not."""
    rows = [
        (0, values_of([row(0.2), row(0.2), row(1.0), row(1.0)], LEVELS)),
        (5, values_of([row(0.6), row(0.4), row(0.0), row(0.0)], LEVELS)),
        (9, values_of([row(0.3), row(0.4)], LEVELS)),
    ]
    whole = compare_evaluations("score", 1, rows[:2])
    assert (whole.baseline.score, whole.last.score) == (0.6, 0.25)
    part = compare_evaluations("score", 1, rows)
    assert part.baseline.score == pytest.approx(0.2)
    assert (part.best.step, part.best.score) == (5, 0.5)
    assert (part.last.step, part.last.score) == (9, 0.35)
    assert part.examples == 2


def test_the_step_before_training_is_not_the_best_checkpoint():
    rows = [(0, values_of([row(0.9)], [1])), (5, values_of([row(0.1)], [1]))]
    compared = compare_evaluations("score", 1, rows)
    assert compared.best.step == 5
    assert compare_evaluations("score", 1, rows[:1]).best is None


def test_an_evaluation_that_was_hardly_judged_is_not_compared():
    rows = [
        (0, values_of([row(0.5), row(0.5)], [2])),
        (5, values_of([row(1.0), row(None)], [2])),
    ]
    compared = compare_evaluations("score", 1, rows)
    assert compared.best is None
    assert compared.last is None
    assert compared.unscored == 1


def test_less_loss_is_better_and_needs_no_scores():
    rows = [
        (step, values_of([row(None, loss=loss, tokens=1)], [1], "loss"))
        for step, loss in ((0, 9.0), (5, 2.0), (9, 3.0))
    ]
    compared = compare_evaluations("loss", 1, rows)
    assert (compared.baseline.score, compared.best.step, compared.last.step) == (9.0, 5, 9)
