"""The metrics of a followed run, from its status and from storage."""

from typing import Any

from flashrun.api.resource import FlashRunStatus
from flashrun.cli.output.metric_series import MetricSeries, headline
from tests.cli.storage import metrics_rows


def status(
    step: int, *, evaluation: dict[str, Any] | None = None, **metrics: str
) -> FlashRunStatus:
    progress = {"step": step, "totalSteps": 10, "percent": 0, "metrics": metrics}
    return FlashRunStatus.validate_stored({"progress": progress, "evaluation": evaluation})


def test_values_of_the_status_are_collected_by_step() -> None:
    series = MetricSeries()
    for step, reward in ((1, "0.1"), (1, "0.1"), (2, "0.2"), (5, "0.5")):
        series.add_status(status(step, reward=reward, loss="9"))

    assert series.curve("reward") == (0.1, 0.2, 0.5)
    assert series.headline == "reward"


def test_storage_fills_in_the_steps_that_nobody_saw() -> None:
    series = MetricSeries()
    series.add_status(status(3, loss="0.25"))
    series.add_rows(metrics_rows({1: {"loss": 1.0}, 2: {"loss": 0.5}}))

    assert series.curve("loss") == (1.0, 0.5, 0.25)


def test_steps_that_the_next_attempt_repeats_are_forgotten() -> None:
    series = MetricSeries()
    for step in (1, 2, 3, 4):
        series.add_status(status(step, loss=str(step)))
    series.add_status(status(2, loss="2"))

    assert series.curve("loss") == (1.0, 2.0)


def test_a_history_that_was_written_again_replaces_what_was_known() -> None:
    series = MetricSeries()
    series.add_rows(metrics_rows({1: {"loss": 1.0}, 2: {"loss": 2.0}}))
    series.replace_rows(metrics_rows({2: {"loss": 3.0}}))
    assert series.curve("loss") == (3.0,)

    series.replace_rows([])
    assert series.curve("loss") == (3.0,)


def test_the_status_may_be_ahead_of_storage() -> None:
    series = MetricSeries()
    series.add_status(status(3, loss="3"))
    series.replace_rows(metrics_rows({1: {"loss": 1.0}, 2: {"loss": 2.0}}))

    assert series.curve("loss") == (1.0, 2.0, 3.0)


def test_evaluations_come_from_the_status_and_in_full_from_storage() -> None:
    points = {
        "metric": "exact",
        "baseline": {"step": 0, "score": "0.1"},
        "last": {"step": 20, "score": "0.3333"},
        "best": {"step": 20, "score": "0.3333"},
    }
    series = MetricSeries()
    series.add_status(status(20, evaluation=points, loss="1"))
    assert series.curve("eval/exact") == (0.1, 0.3333)

    series.add_rows(metrics_rows({10: {"eval/exact": 0.2}, 20: {"eval/exact": 1 / 3}}))
    series.add_status(status(20, evaluation=points, loss="1"))
    assert series.curve("eval/exact") == (0.1, 0.2, 1 / 3)


def test_what_is_not_a_finite_number_is_left_out() -> None:
    series = MetricSeries()
    series.add_status(status(1, loss="nan", reward="high"))

    assert series.curve("loss") == series.curve("reward") == ()


def test_a_run_without_reward_and_loss_is_watched_by_its_first_metric() -> None:
    assert headline({"exact": 1, "other": 2}) == "exact"
    assert headline({"loss": 1, "exact": 2}) == "loss"
    assert headline({}) == ""


def test_an_evaluation_alone_is_not_what_a_run_is_watched_by() -> None:
    series = MetricSeries()
    series.add_rows(metrics_rows({0: {"eval/score": 0.5}}))

    assert series.headline == ""
