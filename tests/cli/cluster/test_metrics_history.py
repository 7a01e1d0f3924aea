"""The metrics of a run in storage, and the scores among them."""

from collections.abc import Sequence
from typing import Any

import pytest

from flashrun.cli.cluster.metrics_history import choose_keys, judged_metric, scores_by_step
from flashrun.cli.output.failure import NotFoundFailure
from tests.cli.golden import golden_run
from tests.cli.storage import metrics_rows


def test_scores_are_those_of_one_metric_and_the_last_value_of_a_step_counts() -> None:
    rows = metrics_rows(
        {0: {"eval/score": 0.1, "eval/exact": 0.2}}, {5: {"loss": 1.0}}, {5: {"eval/score": 0.3}},
        {10: {"eval/score": 0.5}}, {10: {"eval/score": 0.4}},
    )  # fmt: skip

    assert scores_by_step(rows, "score") == {0: 0.1, 5: 0.3, 10: 0.4}
    assert scores_by_step(rows, "exact") == {0: 0.2}
    assert scores_by_step(rows, "loss") == {}


METRICS = [
    ("what status says", {"evaluation": {"metric": "fluency"}}, "fluency"),
    ("what the config says", {}, "exact"),
]


@pytest.mark.parametrize(
    ("status", "metric"), [row[1:] for row in METRICS], ids=[row[0] for row in METRICS]
)
def test_the_best_checkpoint_is_judged_by(status: dict[str, Any], metric: str) -> None:
    run = golden_run("running", "evaluated-sft", **{"evaluation": None, **status})
    rows = metrics_rows({10: {"eval/exact": 0.5}})

    assert judged_metric(run, rows) == metric


def test_an_environment_without_a_score_is_judged_by_its_loss() -> None:
    run = golden_run("running", "evaluated-sft", evaluation=None)
    rows = metrics_rows({10: {"eval/loss": 0.5}})

    assert judged_metric(run, rows) == "loss"


KEYS = ["eval/score", "loss", "grad"]
CHOICES: list[tuple[Sequence[str] | None, list[str]]] = [
    (None, KEYS),
    (["loss"], ["loss"]),
    (["eval/*"], ["eval/score"]),
    (["loss", "*"], ["loss", "eval/score", "grad"]),
    (["loss", "loss"], ["loss"]),
]


@pytest.mark.parametrize(("wanted", "keys"), CHOICES)
def test_keys_are_names_or_patterns(wanted: Sequence[str] | None, keys: list[str]) -> None:
    assert choose_keys(KEYS, wanted) == keys


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [("los", "did you mean loss?"), ("zzz", "it has: eval/score, loss, grad"), ("LR/*", "it has")],
)
def test_a_metric_that_the_run_does_not_have_is_refused(wanted: str, hint: str) -> None:
    with pytest.raises(NotFoundFailure, match="has no metric") as caught:
        choose_keys(KEYS, [wanted])

    assert hint in caught.value.hint
