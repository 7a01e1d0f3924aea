"""Metrics: what Prometheus scrapes."""

from prometheus_client import REGISTRY

import flashrun
from flashrun.controller import operator_metrics
from flashrun.store_errors import KeyExists, KeyNotFound, Unavailable


def test_metrics_are_text_with_the_version_of_the_operator() -> None:
    operator_metrics.ENDED.labels("Failed", "OutOfMemory").inc()
    body, content_type = operator_metrics.exposition()
    text = body.decode()
    assert content_type.startswith("text/plain")
    assert f'flashrun_operator_build_info{{version="{flashrun.__version__}"}} 1.0' in text
    assert 'flashrun_runs_ended_total{phase="Failed",reason="OutOfMemory"}' in text


def test_no_metric_has_a_label_for_a_single_run() -> None:
    for metric in (
        operator_metrics.LEADING,
        operator_metrics.PASSES,
        operator_metrics.FAILED_PASSES,
        operator_metrics.WAITING,
        operator_metrics.ENDED,
        operator_metrics.GPU_SECONDS,
        operator_metrics.WATCH_RESTARTS,
    ):
        assert not {"run", "name", "uid"} & set(metric._labelnames)


def _sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_an_answer_of_storage_is_no_error_also_when_a_key_is_missing() -> None:
    counted = "flashrun_storage_request_duration_seconds_count"
    before = _sample(counted, operation="get")
    for error in (None, KeyNotFound("k"), KeyExists("k"), Unavailable("k")):
        operator_metrics.observe_storage("get", 0.1, error)
    assert _sample(counted, operation="get") - before == 4
    errors = "flashrun_storage_errors_total"
    assert _sample(errors, operation="get", reason="Unavailable") == 1
    assert not _sample(errors, operation="get", reason="KeyNotFound")
    assert not _sample(errors, operation="get", reason="KeyExists")


def test_a_duration_that_no_step_has_is_not_counted() -> None:
    for seconds in (2.5, None, -1.0, float("nan"), float("inf"), 1e300):
        operator_metrics.observe_step("team-x", seconds)
    assert _sample("flashrun_step_duration_seconds_count", namespace="team-x") == 1
    assert _sample("flashrun_step_duration_seconds_sum", namespace="team-x") == 2.5
