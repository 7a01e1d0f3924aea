"""The metrics of a run in storage, and the scores among them."""

import json
from typing import Any

import pytest

from flashrun.cli.cluster.metrics_history import judged_metric, parse_history, scores_by_step
from tests.cli.golden import golden_run
from tests.cli.storage import metrics_history

JUNK = [
    b"",
    b"not JSON",
    b"[]",
    b"\xff\xfe",
    b'{"step": -1}',
    json.dumps(
        {"step": 1, "attempt": 1, "time": "2026-11-22T12:00:00Z", "values": {"a": "x"}}
    ).encode(),
    b'{"step": 1, "attempt": 1, "time": "2026-11-22T12:00:00Z", "values": {"a": NaN}}',
]


def test_a_line_that_is_not_a_row_is_left_out() -> None:
    data = metrics_history({1: {"loss": 2.0}}, {2: {"loss": 1.0}})

    rows = parse_history(b"\n".join([*JUNK, data, *JUNK]))

    assert [row.step for row in rows] == [1, 2]


def test_scores_are_those_of_one_metric_and_the_last_value_of_a_step_counts() -> None:
    data = metrics_history(
        {0: {"eval/score": 0.1, "eval/exact": 0.2}}, {5: {"loss": 1.0}}, {5: {"eval/score": 0.3}},
        {10: {"eval/score": 0.5}}, {10: {"eval/score": 0.4}},
    )  # fmt: skip

    assert scores_by_step(parse_history(data), "score") == {0: 0.1, 5: 0.3, 10: 0.4}
    assert scores_by_step(parse_history(data), "exact") == {0: 0.2}
    assert scores_by_step(parse_history(data), "loss") == {}


METRICS = [
    ("what status says", {"evaluation": {"metric": "fluency"}}, "fluency"),
    ("what the config says", {}, "exact"),
]


@pytest.mark.parametrize(
    ("status", "metric"), [row[1:] for row in METRICS], ids=[row[0] for row in METRICS]
)
def test_the_best_checkpoint_is_judged_by(status: dict[str, Any], metric: str) -> None:
    run = golden_run("running", "evaluated-sft", **{"evaluation": None, **status})
    rows = parse_history(metrics_history({10: {"eval/exact": 0.5}}))

    assert judged_metric(run, rows) == metric


def test_an_environment_without_a_score_is_judged_by_its_loss() -> None:
    run = golden_run("running", "evaluated-sft", evaluation=None)
    rows = parse_history(metrics_history({10: {"eval/loss": 0.5}}))

    assert judged_metric(run, rows) == "loss"
