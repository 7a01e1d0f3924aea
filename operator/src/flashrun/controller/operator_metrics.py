"""Prometheus metrics of the operator; no label holds the name of a run."""

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

import flashrun

BUILD = Info("flashrun_operator_build", "The operator's version.")
BUILD.info({"version": flashrun.__version__})
LEADING = Gauge("flashrun_operator_leading", "Whether this replica acts.")
PASSES = Histogram(
    "flashrun_reconcile_duration_seconds",
    "Duration of one pass over one run.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
FAILED_PASSES = Counter(
    "flashrun_reconcile_errors_total", "Passes that ended with an error.", ["reason"]
)
RECORDS_REFUSED = Counter(
    "flashrun_records_refused_total",
    "Records in storage that were outside their bounds and ignored.",
    ["record"],
)
NAMESPACE_SERVED = Gauge(
    "flashrun_namespace_served", "Whether the operator has its rights there.", ["namespace"]
)
WAITING = Gauge("flashrun_queue_length", "Runs that are due and not in progress.")
ENDED = Counter("flashrun_runs_ended_total", "Runs that ended.", ["phase", "reason"])
GPU_SECONDS = Counter("flashrun_gpu_seconds_total", "GPU time of ended runs.", ["namespace"])
LOST_EVENTS = Counter(
    "flashrun_lost_events_total", "Changes of objects that a watch had not shown."
)
WATCH_RESTARTS = Counter("flashrun_watch_restarts_total", "Restarts of the watches.")


def exposition() -> tuple[bytes, str]:
    """Return all metrics as text, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
