"""The names of an evaluation's metrics, and which of two values is better."""

import pytest

from flashrun.api import evaluation


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("score", {}, None),
        ("score", {20: 0.1}, 20),
        ("score", {20: 0.1, 40: 0.3, 60: 0.2}, 40),
        ("score", {60: 0.3, 40: 0.3}, 40),
        ("accuracy", {20: -2.0, 40: -1.0}, 40),
        ("loss", {20: 1.5, 40: 0.9, 60: 1.1}, 40),
        ("loss", {20: 0.9, 40: 0.9}, 20),
        ("token_accuracy", {20: 0.9, 40: 0.8}, 20),
    ],
)
def test_the_best_step_has_the_best_value_and_is_the_earliest_of_equal_ones(
    metric: str, values: dict[int, float], best: int | None
) -> None:
    assert evaluation.best_step(metric, values) == best


@pytest.mark.parametrize(
    ("metric", "attempts"),
    [("pass@1", 1), ("pass@16", 16), ("pass@0", None), ("pass@", None), ("pass@016", None)],
)
def test_pass_at_k_names_its_attempts(metric: str, attempts: int | None) -> None:
    assert evaluation.attempts_of(metric) == attempts


def test_the_name_of_pass_at_k_is_read_back() -> None:
    assert evaluation.attempts_of(evaluation.pass_at(8)) == 8


@pytest.mark.parametrize(
    "metric", ["score", "loss", "token_accuracy", "examples", "unscored", "seconds", "pass@4"]
)
def test_a_metric_of_the_evaluation_itself_is_reserved(metric: str) -> None:
    assert evaluation.is_reserved(metric)
    assert not evaluation.is_reserved(f"my_{metric}")


def test_metrics_of_an_evaluation_are_told_from_those_of_training() -> None:
    assert evaluation.metric_key("score") == "eval/score"
