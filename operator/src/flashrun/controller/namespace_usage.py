"""GPU time that the runs of each namespace with a budget have used in this month.

Runs that exist are counted by their status, runs that have ended or were deleted by the operator's
record of their end; people can write neither. Both are read once, and from then on the operator
notes what it writes itself: it is the only one that writes them while it holds the lease.
"""

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.platform import BudgetSettings
from flashrun.api.reasons import TERMINAL
from flashrun.api.records import Ending
from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.cluster import Cluster
from flashrun.controller import operator_metrics
from flashrun.controller.storage_threads import call_storage
from flashrun.plan.budgets import NamespaceBudget, gpus_held
from flashrun.plan.gpu_time import gpu_time, month_start
from flashrun.plan.types import Object
from flashrun.store import Store
from flashrun.store_errors import Corrupt, KeyNotFound, StoreError

RUNS_LIMIT: Final = 5_000
"""Most runs of a namespace that exist and have had pods: the newest count."""
PARALLEL: Final = 8
"""Records that are read at a time."""
_COUNTED: Final = ("phase", "startTime", "completionTime", "gpuSeconds")
_SKEW: Final = timedelta(hours=1)
"""How far the clock of storage may be behind."""

log = logging.getLogger(__name__)


class _Usage:
    """What is known of one namespace; uids are of runs."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.loaded = False
        self.unfinished: dict[str, FlashRunStatus] = {}
        self.ended: dict[str, tuple[datetime, int]] = {}
        """When a run has ended, and its GPU time in that month."""

    def put(self, uid: str, status: FlashRunStatus, now: datetime) -> None:
        """Take the status of a run; one that has ended does not begin again."""
        if status.phase in TERMINAL:
            ended = status.completion_time or now
            self.unfinished.pop(uid, None)
            self.ended[uid] = (ended, gpu_time(status, ended).of_month)
        elif uid not in self.ended:
            self.unfinished[uid] = _short(status)


class NamespaceUsage:
    """Counts GPU time of namespaces; ``note`` and ``end`` may be called in any thread."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        budgets: Mapping[str, BudgetSettings],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._store, self._clock = cluster, store, clock
        self._budgets, self._lock = budgets, threading.Lock()
        self._usage = {namespace: _Usage() for namespace in budgets}

    def publish(self) -> None:
        """Let the metrics show what namespaces may use and have used."""
        for namespace, budget in self._budgets.items():
            operator_metrics.BUDGET.labels(namespace).set(budget.gpu_hours_per_month * 3600)
            used = operator_metrics.BUDGET_USED.labels(namespace)
            used.set_function(partial(self._known_seconds, namespace))

    async def budget(self, namespace: str) -> NamespaceBudget | None:
        """Return the budget of a namespace and what is used of it; None: it has no limit.

        Raises:
            ClusterError: the API server did not answer, or refused.
        """
        settings = self._budgets.get(namespace)
        if settings is None:
            return None
        usage, problem = self._usage[namespace], ""
        async with usage.lock:
            if not usage.loaded:
                try:
                    await self._load(namespace, usage)
                except StoreError as error:
                    problem = f"What the namespace has used of its budget is not known: {error}"
        with self._lock:
            gpus = sum(map(gpus_held, usage.unfinished.values()))
        begin = month_start(self._clock())
        return NamespaceBudget(
            hours=settings.gpu_hours_per_month,
            used_seconds=self._seconds(namespace),
            gpus=gpus,
            renewed=month_start(begin + timedelta(days=31)),
            problem=problem,
        )

    def note(self, run: FlashRun, status: FlashRunStatus) -> None:
        """Note the status of a run as it was written."""
        usage = self._usage.get(run.namespace)
        if usage is not None and status.attempts:
            with self._lock:
                usage.put(run.uid, status, self._clock())

    def end(self, ending: Ending) -> None:
        """Note that a run was deleted."""
        usage = self._usage.get(ending.run.namespace)
        if usage is not None:
            with self._lock:
                usage.unfinished.pop(ending.run.uid, None)
                usage.ended[ending.run.uid] = _counted(ending)

    def _known_seconds(self, namespace: str) -> float:
        return self._seconds(namespace) if self._usage[namespace].loaded else math.nan

    def _seconds(self, namespace: str) -> float:
        now = self._clock()
        begin, usage = month_start(now), self._usage[namespace]
        with self._lock:
            unfinished = sum(
                gpu_time(status, now, goes_on=True).of_month for status in usage.unfinished.values()
            )
            ended = sum(seconds for moment, seconds in usage.ended.values() if moment >= begin)
        return float(unfinished + ended)

    async def _load(self, namespace: str, usage: _Usage) -> None:
        def rank(manifest: Object) -> str | None:
            status = manifest.get("status") or {}
            return manifest["metadata"].get("creationTimestamp") if status.get("attempts") else None

        found = await self._cluster.newest(names.KIND, namespace, {}, RUNS_LIMIT, rank)
        ended = await call_storage(self._read_endings, namespace)
        now = self._clock()
        with self._lock:
            usage.ended = ended | usage.ended
            for manifest in found:
                uid = manifest["metadata"]["uid"]
                try:
                    status = _read_status(manifest)
                except ValidationError as error:
                    log.warning("run %s is not counted: %s", manifest["metadata"]["name"], error)
                    continue
                if uid not in usage.unfinished:  # what was noted meanwhile is newer
                    usage.put(uid, status, now)
        usage.loaded = True

    def _read_endings(self, namespace: str) -> dict[str, tuple[datetime, int]]:
        """Return the runs that have ended in this month, by the operator's records."""
        oldest = month_start(self._clock()) - _SKEW
        keys = [
            entry.key
            for entry in self._store.list(f"{names.ENDINGS_PREFIX}{namespace}/")
            if entry.modified is None or entry.modified >= oldest
        ]
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="usage") as pool:
            endings = [*filter(None, pool.map(self._read_ending, keys))]
        return {ending.run.uid: _counted(ending) for ending in endings}

    def _read_ending(self, key: str) -> Ending | None:
        try:
            return self._store.get_json(key, Ending)
        except (KeyNotFound, Corrupt):
            return None


def _counted(ending: Ending) -> tuple[datetime, int]:
    of_month = ending.month_gpu_seconds
    return ending.ended, ending.gpu_seconds if of_month is None else of_month


def _short(status: FlashRunStatus) -> FlashRunStatus:
    """Return what counts of a status."""
    return FlashRunStatus(
        phase=status.phase,
        start_time=status.start_time,
        completion_time=status.completion_time,
        gpu_seconds=status.gpu_seconds,
        attempts=status.attempts,
    )


def _read_status(manifest: Object) -> FlashRunStatus:
    status = manifest["status"]
    counted = {key: status[key] for key in _COUNTED if key in status}
    attempts = [{"number": 0, "pod": "", **attempt} for attempt in status["attempts"]]
    return FlashRunStatus.validate_stored({**counted, "attempts": attempts})
