"""The operator's process: ``python -m flashrun.controller --settings platform.yaml``.

It stands by until it holds the lease, then watches, polls and works until a signal comes or the
lease is lost. Its exit code is 0 after a signal and 1 otherwise; the kubelet starts it again.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Coroutine
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from flashrun.api import names
from flashrun.cluster import Cluster, Connection
from flashrun.cluster_errors import ClusterError
from flashrun.controller import json_logs, metrics, settings
from flashrun.controller.health import OLDEST_SECONDS, Health
from flashrun.controller.lease import Lease
from flashrun.controller.observe import Observer
from flashrun.controller.poll import HeartbeatPoller, resync
from flashrun.controller.publish import publish
from flashrun.controller.queue import Queue, RunKey
from flashrun.controller.reconcile import Reconciler
from flashrun.controller.settings import Settings, SettingsError
from flashrun.controller.watch import Watch
from flashrun.store import Store
from flashrun.store_errors import StoreError

WORKERS: Final = 8
PORT: Final = 8080
_ASK_AGAIN_SECONDS: Final = 5.0

log = logging.getLogger("flashrun.controller")


def main() -> int:
    """Run the operator; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flashrun.controller", description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="the platform's YAML file")
    parser.add_argument("--storage-keys", type=Path, default=settings.KEYS_FOLDER)
    parser.add_argument("--kubeconfig", type=Path, help="for an operator outside the cluster")
    parser.add_argument("--port", type=int, default=PORT, help="of probes and metrics; 0 is any")
    parser.add_argument("--log-level", default="INFO")
    given = parser.parse_args()
    json_logs.set_up(given.log_level)
    try:
        chosen = settings.load(given.settings, given.storage_keys)
        return asyncio.run(_run(chosen, given.kubeconfig, given.port))
    except (SettingsError, ClusterError) as error:
        log.error("%s", error)
        return 1


async def _run(chosen: Settings, kubeconfig: Path | None, port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = Health()
    async with await Cluster.login(kubeconfig) as cluster, contextlib.AsyncExitStack() as cleanup:
        runner = await health.serve(port)
        cleanup.push_async_callback(runner.cleanup)
        lease = Lease(cluster, cluster.namespace, chosen.lease_name, chosen.identity)
        cleanup.push_async_callback(lease.release)
        beat = asyncio.create_task(health.beat())
        cleanup.callback(beat.cancel)
        stopped = asyncio.create_task(stop.wait())
        work = asyncio.create_task(_lead(chosen, cluster, lease, health))
        await asyncio.wait([stopped, work], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    return 0 if stop.is_set() else 1


async def _lead(chosen: Settings, cluster: Cluster, lease: Lease, health: Health) -> None:
    """Wait for the cluster, then for the lease, and act while it is held."""
    await _serving(cluster, chosen.platform.namespaces)
    health.ready = True
    await lease.acquire()
    metrics.LEADING.set(1)
    try:
        store, heartbeats = await _storage(chosen)
        await _act(chosen, cluster, store, heartbeats, lease, health)
    finally:
        metrics.LEADING.set(0)


async def _act(
    chosen: Settings,
    cluster: Cluster,
    store: Store,
    heartbeats: HeartbeatPoller,
    lease: Lease,
    health: Health,
) -> None:
    loop, platform = asyncio.get_running_loop(), chosen.platform
    queue = Queue(loop.time)
    observer = Observer(cluster, store, heartbeats)
    reconciler = Reconciler(cluster, store, observer, platform, lambda: lease.held)

    metrics.WAITING.set_function(lambda: len(queue))

    def add(key: RunKey) -> None:
        if key.namespace in platform.namespaces:
            queue.add(key)

    def add_from_thread(key: RunKey) -> None:
        loop.call_soon_threadsafe(add, key)

    def connect() -> Connection:
        return asyncio.run_coroutine_threadsafe(cluster.connection(), loop).result(10)

    def keep(uids: AbstractSet[str]) -> None:
        observer.keep(uids)
        heartbeats.sweep(uids, platform.namespaces)

    watch = Watch(platform.namespaces, connect, add_from_thread)
    log.info("serving %s on %s", ", ".join(platform.namespaces), cluster.server)
    watch.start()
    health.checks += [watch.trouble, lambda: _stuck(queue)]
    jobs: list[Coroutine[Any, Any, None]] = [
        lease.keep(),
        heartbeats.run(add),
        resync(cluster, platform.namespaces, add, keep),
        publish(cluster, store, platform),
        *(queue.work(reconciler.handle) for _ in range(WORKERS)),
    ]
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        watch.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _stuck(queue: Queue) -> str:
    oldest = queue.oldest_seconds()
    return f"a run has been due for {oldest:.0f} s" if oldest > OLDEST_SECONDS else ""


async def _serving(cluster: Cluster, namespaces: tuple[str, ...]) -> None:
    """Wait until the API server knows FlashRuns and lets us list them."""
    while True:
        try:
            await cluster.list(names.KIND, namespaces[0])
        except ClusterError as error:
            log.warning("waiting: %s", error)
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        else:
            return


async def _storage(chosen: Settings) -> tuple[Store, HeartbeatPoller]:
    """Wait until the heartbeats are read; a trainer that is not heard would be taken for dead."""
    while True:
        try:
            store = await asyncio.to_thread(chosen.store)
            heartbeats = HeartbeatPoller(store)
            await asyncio.to_thread(store.ensure_bucket)
            await asyncio.to_thread(heartbeats.poll)
        except StoreError as error:
            log.warning("waiting: %s", error)
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        else:
            return store, heartbeats


if __name__ == "__main__":
    sys.exit(main())
