"""The operator process: ``python -m flashrun.controller --settings platform.yaml``.

It waits until it holds the lease. Then it watches, polls and reconciles until it gets a signal or
another replica takes the lease. While the lease cannot be renewed, it writes nothing. Its exit code
is 0 after a signal and 1 otherwise; the kubelet starts it again.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from prometheus_client import REGISTRY
from typing_extensions import override

from flashrun.api import names
from flashrun.api.platform import Platform
from flashrun.api.reasons import Reason
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError, Forbidden
from flashrun.cluster_login import Connection
from flashrun.controller import events, json_logs, operator_metrics
from flashrun.controller.bounded_answers import BoundedAnswers
from flashrun.controller.events import EventPoster
from flashrun.controller.free_memory import give_back_free_memory
from flashrun.controller.health import OLDEST_SECONDS, Health
from flashrun.controller.known_runs import KnownRuns
from flashrun.controller.lease import Lease
from flashrun.controller.lost_events import LostEvents
from flashrun.controller.mirror_reader import MirrorReader
from flashrun.controller.namespace_sources import (
    FollowedNamespaces,
    ListedNamespaces,
    NamespaceSource,
)
from flashrun.controller.namespace_usage import NamespaceUsage
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.observe import Observer
from flashrun.controller.poll import (
    FEW_RUNS,
    Add,
    HeartbeatPoller,
    Known,
    StartLists,
    resync,
)
from flashrun.controller.publish import publish
from flashrun.controller.queue import Queue, RunKey
from flashrun.controller.reconcile import Reconciler
from flashrun.controller.run_metrics import RunMetrics
from flashrun.controller.run_traces import RunTraces, Send
from flashrun.controller.served_namespaces import ServedNamespaces
from flashrun.controller.settings import (
    KEYS_FOLDER,
    UPSTREAMS_FOLDER,
    Settings,
    SettingsError,
    load_settings,
    read_platform,
)
from flashrun.controller.storage_probe import StartProbe
from flashrun.controller.storage_threads import call_heartbeats, call_storage
from flashrun.controller.tls_buffers import limit_tls_buffers
from flashrun.controller.upstreams import Upstreams
from flashrun.controller.watch import Watch
from flashrun.daemon_thread import in_daemon_thread
from flashrun.plan.types import RunEvent
from flashrun.store import Store
from flashrun.store_errors import StoreError

WORKERS: Final = 8
PORT: Final = 8080
FIRST_LISTS_SECONDS: Final = 15.0
FLUSH_SECONDS: Final = 3.0
"""Longest time for the traces that are left when the operator ends."""
_RETRY_SECONDS: Final = 5.0
_READINESS_SECONDS: Final = 0.5

log = logging.getLogger("flashrun.controller")


def main() -> int:
    """Run the operator; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flashrun.controller", description=__doc__)
    parser.add_argument(
        "--settings", type=Path, required=True, help="YAML file with the platform settings"
    )
    parser.add_argument(
        "--storage-keys",
        type=Path,
        default=KEYS_FOLDER,
        help="folder with the files accessKey and secretKey",
    )
    parser.add_argument(
        "--upstream-keys",
        type=Path,
        default=UPSTREAMS_FOLDER,
        help="folder with the folders index, hub and proxy, of the Secrets that the settings name",
    )
    parser.add_argument(
        "--kubeconfig", type=Path, help="kubeconfig for an operator outside the cluster"
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help="port of probes and metrics; 0: any free port"
    )
    parser.add_argument("--log-level", default="INFO", help="lowest level that is logged")
    arguments = parser.parse_args()
    json_logs.set_up(arguments.log_level)
    limit_tls_buffers()
    try:
        loaded = load_settings(arguments.settings, arguments.storage_keys, arguments.upstream_keys)
        return asyncio.run(_run(loaded, arguments.kubeconfig, arguments.port))
    except (SettingsError, ClusterError) as error:
        log.error("%s", error)
        return 1


async def _run(settings: Settings, kubeconfig: Path | None, port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = Health()
    async with await Cluster.login(kubeconfig) as login, contextlib.AsyncExitStack() as cleanup:
        cluster = login.with_answers(BoundedAnswers())
        runner = await health.serve(port)
        cleanup.push_async_callback(runner.cleanup)
        send = await _open_sender(settings, cleanup)
        lease = Lease(cluster, cluster.namespace, settings.lease_name, settings.identity)
        cleanup.push_async_callback(lease.release)
        lag = asyncio.create_task(health.measure_lag())
        cleanup.callback(lag.cancel)
        stopped = asyncio.create_task(stop.wait())
        work = asyncio.create_task(_act_with_lease(settings, cluster, lease, health, send))
        await asyncio.wait([stopped, work], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    return 0 if stop.is_set() else 1


async def _open_sender(settings: Settings, cleanup: contextlib.AsyncExitStack) -> Send | None:
    """Return what sends traces, and let it send what is left when the lease has been released.

    Nothing is loaded where no endpoint is set.
    """
    if not settings.traces_endpoint:
        return None
    from flashrun.controller.trace_sender import TraceSender

    sender = TraceSender(settings.traces_endpoint)

    async def flush() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await in_daemon_thread(sender.flush)

    cleanup.push_async_callback(flush)
    return sender.send


async def _act_with_lease(
    settings: Settings, cluster: Cluster, lease: Lease, health: Health, send: Send | None
) -> None:
    """Wait for the API server, then for the lease; act until another replica takes the lease.

    The lease is renewed from the moment when it is held, whatever storage does.
    """
    while problem := await _missing_flashruns(cluster, settings.platform.namespaces):
        log.warning("waiting: %s", problem)
        await asyncio.sleep(_RETRY_SECONDS)
    health.waits_for = ""
    await lease.acquire()
    health.checks.append(lease.problem)
    operator_metrics.LEADING.set_function(lambda: lease.held)
    await _until_first_ends(lease.renew_until_taken(), _act(settings, cluster, lease, health, send))


async def _act(
    settings: Settings, cluster: Cluster, lease: Lease, health: Health, send: Send | None
) -> None:
    """Read the heartbeats once, then watch, poll and reconcile.

    Storage may be away: then runs say so, until the poller has read it.
    """
    health.waits_for = "storage has not been read yet"
    store = await _open_storage(settings)
    store.check_writes(lambda: lease.held)
    prove = StartProbe(store, settings.platform.storage, lambda: lease.uid)
    heartbeats = HeartbeatPoller(store, prove=prove)
    heard: list[RunKey] = []
    try:
        heard = await call_heartbeats(heartbeats.poll)
    except StoreError as error:
        log.warning("storage cannot be used: %s", error)
    traces = RunTraces(store, send)
    await _run_workers(settings, cluster, store, heartbeats, heard, lease, health, traces)


async def _until_first_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run ``coroutines`` until one of them ends; cancel the others, raise the error of that one."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_workers(
    settings: Settings,
    cluster: Cluster,
    store: Store,
    heartbeats: HeartbeatPoller,
    heard: list[RunKey],
    lease: Lease,
    health: Health,
    traces: RunTraces,
) -> None:
    """Watch, poll and reconcile until one of the tasks ends; runs in ``heard`` are due at once."""
    loop, platform = asyncio.get_running_loop(), settings.platform
    queue = Queue(loop.time)
    mirror = MirrorReader(store, platform)
    acting = cluster.checking_writes(lease.check)
    operator_metrics.prepare(platform.namespaces, _pool_names(platform))
    served = ServedNamespaces(
        cluster,
        _namespace_source(settings, acting),
        lambda added: operator_metrics.prepare(added, _pool_names(platform)),
    )
    await served.probe()
    cache = ObjectCache(len(served.wanted))
    usage = NamespaceUsage(cluster, store, platform.budgets)
    usage.publish()
    observer = Observer(cluster, store, heartbeats, mirror, cache=cache, usage=usage)
    known_runs = KnownRuns(store, lambda: lease.uid)
    poster = EventPoster(acting, lambda: lease.held)
    metrics = RunMetrics(cache.phases, is_served=lambda name: name in served.wanted)
    issuer = settings.access_issuer(store)
    reconciler = Reconciler(
        *(cluster, store, issuer, observer, known_runs, poster, platform),
        leading=lambda: lease.held,
        cache=cache,
        metrics=metrics,
        usage=usage,
        traces=traces,
    )

    async def handle(key: RunKey) -> float | None:
        if key.namespace not in served.wanted:
            return None  # it was left after the run became due
        async with lease.while_held():
            return await reconciler.handle(key)

    lease.on_regained.append(queue.hurry)
    REGISTRY.register(metrics)
    operator_metrics.WAITING.set_function(lambda: len(queue))
    operator_metrics.OLDEST.set_function(queue.oldest_seconds)

    def add(key: RunKey, delay: float = 0.0) -> None:
        if key.namespace in served.wanted:
            queue.add(key, delay)

    def add_from_thread(key: RunKey, delay: float) -> None:
        loop.call_soon_threadsafe(add, key, delay)

    def connect() -> Connection:
        return asyncio.run_coroutine_threadsafe(cluster.connection(), loop).result(10)

    def clean_up(known: Known, uids: AbstractSet[str], listed: tuple[str, ...]) -> None:
        observer.forget_all_except(uids)
        if lease.held:
            reconciler.record_missed_deletions(known, uids, listed)
            heartbeats.delete_orphans(uids, listed, reconciler.record_missed_deletion)

    lists = WatchLists(cache, served)
    watch = Watch(lambda: served.now, connect, add_from_thread, reconciler.record_deletion, cache)
    lost_events = LostEvents(cluster, cache, lambda: served.now, add, watch.begin_anew)
    log.info("serving %s on %s", ", ".join(served.wanted), cluster.server)
    watch.start()
    health.checks += [watch.problem, lambda: _overdue(queue)]
    try:
        await _until_first_ends(
            _report_readiness(acting, heartbeats, health),
            heartbeats.run(add),
            poster.run(),
            traces.run(),
            give_back_free_memory(),
            _add_heard(heard, add, lists),
            served.run(),
            lost_events.run(),
            resync(cluster, lambda: served.wanted, add, known_runs.read, clean_up, lists),
            publish(
                acting,
                issuer,
                platform,
                Upstreams(platform.trainer, settings.upstreams),
                mirror,
                lambda: served.now,
                lambda: heartbeats.problem if heartbeats.unsuitable else "",
            ),
            *(queue.work(handle) for _ in range(WORKERS)),
        )
    finally:
        watch.stop()


def _pool_names(platform: Platform) -> Iterator[str]:
    return (pool.name for pool in platform.pools)


def _namespace_source(settings: Settings, cluster: Cluster) -> NamespaceSource:
    """Return what says which namespaces are served; ``cluster`` writes only with the lease."""
    platform, path = settings.platform, settings.path
    if platform.follows_namespaces:
        return FollowedNamespaces(cluster, platform, settings.namespace_objects)
    return ListedNamespaces(platform.namespaces, partial(read_platform, path) if path else None)


class WatchLists(StartLists):
    """What the watches have listed, as the cache has it."""

    def __init__(self, cache: ObjectCache, served: ServedNamespaces) -> None:
        self._cache, self._served = cache, served

    @override
    async def wait(self) -> None:
        end = time.monotonic() + FIRST_LISTS_SECONDS
        # The watches' thread fills the cache; this loop cannot wait for an event.
        while not self._are_complete() and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    @override
    def is_settled(self, key: RunKey, version: str | None) -> bool:
        return self._cache.is_settled(key, version)

    def _are_complete(self) -> bool:
        return all(map(self._cache.is_listed, self._served.now))


async def _add_heard(heard: list[RunKey], add: Add, lists: StartLists) -> None:
    """Make the runs due whose heartbeats were read at the start; never returns."""
    if len(heard) > FEW_RUNS:
        await lists.wait()
    for key in heard:
        add(key)
    await asyncio.Event().wait()


async def _report_readiness(cluster: Cluster, heartbeats: HeartbeatPoller, health: Health) -> None:
    """Report that this replica is ready once storage has been read; never returns.

    What storage lacks is also an Event of the operator's pod.
    """
    posted = ""
    while problem := heartbeats.problem:
        health.waits_for = problem
        if heartbeats.unsuitable and problem != posted:
            posted = problem
            event = RunEvent(Reason.STORAGE_UNSUITABLE, problem, warning=True)
            if own := events.own_pod(cluster.namespace):
                await events.post(cluster, own, event, datetime.now(UTC))
        await asyncio.sleep(_READINESS_SECONDS)
    health.waits_for = ""
    await asyncio.Event().wait()


def _overdue(queue: Queue) -> str:
    """Return a problem when a run has been due for too long, or an empty string."""
    oldest = queue.oldest_seconds()
    return f"a run has been due for {oldest:.0f} s" if oldest > OLDEST_SECONDS else ""


async def _missing_flashruns(cluster: Cluster, namespaces: tuple[str, ...]) -> str:
    """Return why the API server does not serve FlashRuns, or an empty string.

    A namespace in which they may not be listed says nothing about the others.
    """
    for namespace in namespaces:
        try:
            async for _ in cluster.list_metadata(names.KIND, namespace):
                break
        except Forbidden:
            continue
        except ClusterError as error:
            return str(error)
        return ""
    return ""


async def _open_storage(settings: Settings) -> Store:
    """Wait for the keys of storage."""
    while True:
        try:
            return await call_storage(settings.open_store)
        except StoreError as error:
            log.warning("waiting: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # threads that wait for storage must not delay the end
