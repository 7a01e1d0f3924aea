"""Metrics: what Prometheus scrapes."""

import flashrun
from flashrun.controller import metrics


def test_metrics_are_text_with_the_version_of_the_operator() -> None:
    metrics.ENDED.labels("Failed", "OutOfMemory").inc()
    body, content_type = metrics.exposition()
    text = body.decode()
    assert content_type.startswith("text/plain")
    assert f'flashrun_operator_build_info{{version="{flashrun.__version__}"}} 1.0' in text
    assert 'flashrun_runs_ended_total{phase="Failed",reason="OutOfMemory"}' in text


def test_no_metric_has_a_label_for_a_single_run() -> None:
    for metric in (
        metrics.LEADING,
        metrics.PASSES,
        metrics.FAILED_PASSES,
        metrics.WAITING,
        metrics.ENDED,
        metrics.GPU_SECONDS,
        metrics.WATCH_RESTARTS,
    ):
        assert not {"run", "name", "uid"} & set(metric._labelnames)
