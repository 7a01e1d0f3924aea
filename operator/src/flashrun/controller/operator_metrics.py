"""Prometheus metrics of the operator; no label holds the name of a run.

Gauges about single runs are in ``run_metrics``.
"""

import itertools
from collections.abc import Iterable
from typing import Final

from prometheus_client import REGISTRY as REGISTRY
from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

import flashrun
from flashrun.store_errors import KeyExists, KeyNotFound

LONGEST_STEP_SECONDS: Final = 86_400.0
"""A step that a heartbeat calls longer than this is not counted."""
_WAIT_BUCKETS: Final = (5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)

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
OLDEST = Gauge(
    "flashrun_queue_oldest_seconds", "Longest time for which a run has been due or in progress."
)
ENDED = Counter("flashrun_runs_ended_total", "Runs that ended.", ["phase", "reason"])
LOST_EVENTS = Counter(
    "flashrun_lost_events_total", "Changes of objects that a watch had not shown."
)
GPU_SECONDS = Counter(
    "flashrun_gpu_seconds_total", "GPU time of ended attempts.", ["namespace", "pool"]
)
BUDGET = Gauge(
    "flashrun_namespace_budget_gpu_seconds",
    "GPU time that the runs of a namespace may use in a calendar month.",
    ["namespace"],
)
BUDGET_USED = Gauge(
    "flashrun_namespace_budget_used_gpu_seconds",
    "GPU time that they have used in this month; not known until a run of the namespace is seen.",
    ["namespace"],
)
QUEUE_SECONDS = Histogram(
    "flashrun_run_queue_duration_seconds",
    "Time from the creation of a run to the start of its first pod.",
    ["namespace", "pool"],
    buckets=_WAIT_BUCKETS,
)
FIRST_STEP_SECONDS = Histogram(
    "flashrun_run_first_step_duration_seconds",
    "Time from the creation of a run to its first step.",
    ["namespace", "pool"],
    buckets=_WAIT_BUCKETS,
)
STEP_SECONDS = Histogram(
    "flashrun_step_duration_seconds",
    "Duration of the newest step of each heartbeat that has a new one.",
    ["namespace"],
    buckets=(0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 900, 3600),
)
STORAGE_SECONDS = Histogram(
    "flashrun_storage_request_duration_seconds",
    "Duration of a request to S3 with its repetitions.",
    ["operation"],
    buckets=(0.005, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
STORAGE_ERRORS = Counter(
    "flashrun_storage_errors_total",
    "Requests to S3 that failed; a key that is missing or exists is an answer.",
    ["operation", "reason"],
)
LEASE_RENEWALS = Counter(
    "flashrun_lease_renewals_total",
    "Attempts to take or renew the Lease: renewed, held by another replica, or failed.",
    ["result"],
)
LEASE_RENEWED = Gauge(
    "flashrun_lease_renewed_timestamp_seconds", "When this replica last renewed the Lease."
)
WATCH_RESTARTS = Counter("flashrun_watch_restarts_total", "Restarts of the watches.")


def prepare(namespaces: Iterable[str], pools: Iterable[str]) -> None:
    """Begin the counters of each namespace and pool at 0, so that the first increase is seen."""
    namespaces = tuple(namespaces)
    for namespace in namespaces:
        STEP_SECONDS.labels(namespace)
    for namespace, pool in itertools.product(namespaces, pools):
        GPU_SECONDS.labels(namespace, pool)
        QUEUE_SECONDS.labels(namespace, pool)
        FIRST_STEP_SECONDS.labels(namespace, pool)


def observe_storage(operation: str, seconds: float, error: Exception | None) -> None:
    """Count one request to storage; any thread may call this."""
    STORAGE_SECONDS.labels(operation).observe(seconds)
    if error is not None and not isinstance(error, KeyNotFound | KeyExists):
        STORAGE_ERRORS.labels(operation, type(error).__name__).inc()


def observe_step(namespace: str, seconds: float | None) -> None:
    """Count the duration of a step as its trainer reports it; None and nonsense do not count."""
    if seconds is not None and 0 <= seconds <= LONGEST_STEP_SECONDS:
        STEP_SECONDS.labels(namespace).observe(seconds)


def exposition() -> tuple[bytes, str]:
    """Return all metrics as text, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
