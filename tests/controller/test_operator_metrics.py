"""Metrics: what Prometheus scrapes."""

import flashrun
from flashrun.controller import operator_metrics


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
