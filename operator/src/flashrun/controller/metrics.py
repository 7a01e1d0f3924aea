"""What the operator counts, for Prometheus; no metric carries a run's name."""

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

import flashrun

BUILD = Info("flashrun_operator_build", "The operator's version.")
BUILD.info({"version": flashrun.__version__})
LEADING = Gauge("flashrun_operator_leading", "Whether this replica acts.")
PASSES = Histogram(
    "flashrun_reconcile_duration_seconds",
    "Time of one pass over one run.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
FAILED_PASSES = Counter(
    "flashrun_reconcile_errors_total", "Passes that ended with an error.", ["reason"]
)
WAITING = Gauge("flashrun_queue_length", "Runs that are due and not being looked at.")
ENDED = Counter("flashrun_runs_ended_total", "Runs that came to an end.", ["phase", "reason"])
GPU_SECONDS = Counter("flashrun_gpu_seconds_total", "GPU time of ended runs.", ["namespace"])
WATCH_RESTARTS = Counter("flashrun_watch_restarts_total", "Times the watches began anew.")


def exposition() -> tuple[bytes, str]:
    """Return all metrics as text, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
