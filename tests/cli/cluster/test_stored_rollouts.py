"""Rollouts in storage: rows that can be read, and the best and worst of them."""

import json
from typing import Any

import pytest

from flashrun.cli.cluster.stored_rollouts import (
    StepRollouts,
    order_rollouts,
    parse_rollouts,
    rollout_value,
)
from flashrun.cli.output.failure import UsageFailure


def rollout(name: str, score: Any, **metrics: Any) -> dict[str, Any]:
    return {"completion": name, "score": score, "reward": score, "metrics": metrics}


FOUND = StepRollouts(
    3,
    [
        rollout("b", 0.5, exact=1.0), rollout("c", 0.25), rollout("failed", None),
        rollout("a", 1.0, exact=0.0), rollout("d", 0.25), rollout("odd", float("nan")),
    ],
)  # fmt: skip


def ordered(metric: str = "score", worst: int | None = None, best: int | None = None) -> list[str]:
    return [row["completion"] for row in order_rollouts(FOUND, metric, worst=worst, best=best)]


def test_all_rollouts_stay_in_the_order_in_which_they_were_sampled() -> None:
    assert ordered() == ["b", "c", "failed", "a", "d", "odd"]


def test_the_worst_come_first_and_those_without_a_score_are_not_among_them() -> None:
    assert ordered(worst=3) == ["c", "d", "b"]
    assert ordered(worst=99) == ["c", "d", "b", "a"]


def test_the_best_come_first() -> None:
    assert ordered(best=2) == ["a", "b"]


def test_a_metric_of_the_environment_may_order_them() -> None:
    assert ordered("exact", best=9) == ["b", "a"]
    assert ordered("reward", worst=1) == ["c"]


def test_a_metric_that_no_rollout_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageFailure, match="no rollout of step 3 has a value of 'fluency'") as no:
        ordered("fluency", worst=1)

    assert no.value.hint == "choose one with --metric: score, reward, exact"


@pytest.mark.parametrize("value", [None, True, "0.5", [], float("inf"), {}])
def test_only_a_finite_number_is_a_value(value: Any) -> None:
    assert rollout_value({"score": value, "metrics": {"m": value}}, "score") is None
    assert rollout_value({"score": value, "metrics": {"m": value}}, "m") is None
    assert rollout_value({"metrics": value}, "m") is None


@pytest.mark.parametrize("junk", [b"", b"{", b"[1]", b"3", b"\xff", b"[" * 100_000], ids=len)
def test_a_line_that_is_not_a_rollout_is_left_out(junk: bytes) -> None:
    row = json.dumps(rollout("a", 1.0)).encode()

    assert parse_rollouts(b"\n".join([junk, row, junk])) == [rollout("a", 1.0)]
