"""Polling: heartbeats in S3, and a periodic full resync.

Each running trainer writes one small heartbeat file; one listing shows all of them, and only those
that changed are read. The resync makes every run due every few minutes, so that a lost event costs
only time.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final

from flashrun.api import names
from flashrun.api.records import Heartbeat
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError
from flashrun.controller import metrics
from flashrun.controller.queue import RunKey
from flashrun.controller.storage_threads import call_heartbeats, call_storage
from flashrun.store import Entry, Store
from flashrun.store_errors import Corrupt, KeyNotFound, StoreError, Unauthorized, Unavailable

POLL_SECONDS: Final = 3.0
RESYNC_SECONDS: Final = 300.0
SLOWEST_POLL_SECONDS: Final = 60.0
READERS: Final = 8
"""Heartbeats that are read at the same time."""
ORPHAN_AGE: Final = timedelta(minutes=15)
"""Age from which the heartbeat of a deleted run is deleted."""

_LONGEST_PROBLEM: Final = 512

Add = Callable[[RunKey], None]
log = logging.getLogger(__name__)


class HeartbeatPoller:
    """The newest heartbeat of every running trainer."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self.readable_seconds = 0.0
        """Time during which every poll could read storage: only in it can a trainer be silent."""
        self._read_at: float | None = None
        self.problem = "the heartbeats in storage have not been read yet"
        """Why the last poll could not read storage; empty when it could."""
        self._etags: dict[str, str] = {}
        self._heartbeats: dict[str, Heartbeat] = {}
        self._refused: dict[str, str] = {}

    def newest(self, uid: str) -> Heartbeat | None:
        """Return the newest heartbeat of a run, as of the last poll."""
        return self._heartbeats.get(uid)

    def refused(self, uid: str) -> str:
        """Return why the newest heartbeat of a run is ignored; empty when it is not."""
        return self._refused.get(uid, "")

    async def run(self, add: Add) -> None:
        """Poll for ever; a changed heartbeat makes its run due. Errors slow the polling down."""
        pause = POLL_SECONDS
        while True:
            try:
                for key in await call_heartbeats(self.poll):
                    add(key)
                pause = POLL_SECONDS
            except StoreError as error:
                log.warning("heartbeats cannot be read: %s", error)
                pause = min(pause * 2, SLOWEST_POLL_SECONDS)
            await asyncio.sleep(pause)

    def poll(self) -> list[RunKey]:
        """Poll once; return the runs whose heartbeat is new, changed or gone.

        Raises:
            StoreError: storage cannot be read; ``problem`` says so until a poll succeeds.
        """
        try:
            if self.problem:
                self._store.ensure_bucket()
            changed = self._poll()
        except StoreError as error:
            self.problem, self._read_at = str(error), None
            raise
        now = self._clock()
        if self._read_at is not None:
            self.readable_seconds += max(0.0, now - self._read_at)
        self.problem, self._read_at = "", now
        return changed

    def _poll(self) -> list[RunKey]:
        entries = {
            names.heartbeat_uid(entry.key): entry
            for entry in self._store.list(names.HEARTBEAT_PREFIX)
        }
        etags = {uid: entry.etag for uid, entry in entries.items()}
        removed = [self._heartbeats.pop(uid) for uid in self._heartbeats.keys() - etags.keys()]
        self._etags = {uid: etag for uid, etag in self._etags.items() if uid in etags}
        self._refused = {uid: why for uid, why in self._refused.items() if uid in etags}
        changed = []
        new = [uid for uid, etag in etags.items() if self._etags.get(uid) != etag]
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="heartbeat")
        try:
            read = pool.map(self._read, new, [entries[uid] for uid in new])
            for uid, heartbeat in zip(new, read, strict=True):
                if heartbeat is not None:
                    self._heartbeats[uid] = heartbeat
                elif uid in self._refused:
                    heartbeat = self._heartbeats.get(uid)  # the run whose status shows the reason
                if heartbeat is not None:
                    changed.append(heartbeat)
                self._etags[uid] = etags[uid]
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, the others would fail as well
        return [
            RunKey(heartbeat.run.namespace, heartbeat.run.name)
            for heartbeat in (*removed, *changed)
        ]

    def delete_orphans(self, uids: AbstractSet[str], namespaces: tuple[str, ...]) -> None:
        """Delete old heartbeats in ``namespaces`` of runs that are not in ``uids``."""
        limit = datetime.now(UTC) - ORPHAN_AGE
        orphans = [
            names.heartbeat_key(uid)
            for uid, heartbeat in self._heartbeats.items()
            if uid not in uids
            and heartbeat.run.namespace in namespaces
            and heartbeat.updated < limit
        ]
        if orphans:
            self._store.delete(orphans)

    def _read(self, uid: str, entry: Entry) -> Heartbeat | None:
        """Return a valid heartbeat of this run, or None; ``refused`` has the reason.

        Whatever is wrong with one heartbeat costs no other run anything.

        Raises:
            Unavailable, Unauthorized: storage itself has a problem; the next poll reads the
                heartbeats that this one did not.
        """
        self._refused.pop(uid, None)
        try:
            return self._read_valid(uid, entry)
        except KeyNotFound:
            return None
        except (Unavailable, Unauthorized):
            raise
        except StoreError as error:
            problem = str(error)
        except Exception as error:
            log.exception("an unexpected error while the heartbeat of run %s was read", uid)
            problem = f"{entry.key} cannot be read ({type(error).__name__})"
        metrics.RECORDS_REFUSED.labels(Heartbeat.__name__).inc()
        log.warning("the heartbeat of run %s is ignored: %s", uid, problem)
        self._refused[uid] = f"The heartbeat is ignored: {problem}."[:_LONGEST_PROBLEM]
        return None

    def _read_valid(self, uid: str, entry: Entry) -> Heartbeat:
        if entry.size > Heartbeat.max_bytes:
            raise Corrupt(f"{entry.key} is longer than {Heartbeat.max_bytes} bytes")
        heartbeat = self._store.get_json(entry.key, Heartbeat)
        if heartbeat.run.uid != uid:
            raise Corrupt(f"{entry.key} names another run")
        return heartbeat


async def resync(
    cluster: Cluster,
    namespaces: tuple[str, ...],
    add: Add,
    clean_up: Callable[[AbstractSet[str], tuple[str, ...]], None],
) -> None:
    """Make every run of the served namespaces due, now and every few minutes.

    A namespace that cannot be listed costs the others nothing. ``clean_up`` is called in another
    thread with the uids of all existing runs and the namespaces that were listed, to delete the
    data of other runs there.
    """
    while True:
        try:
            await call_storage(clean_up, *await _add_runs(cluster, namespaces, add))
        except StoreError as error:
            log.warning("the resync is incomplete and will be repeated: %s", error)
        await asyncio.sleep(RESYNC_SECONDS)


async def _add_runs(
    cluster: Cluster, namespaces: tuple[str, ...], add: Add
) -> tuple[set[str], tuple[str, ...]]:
    """Make all runs due; return the uids of all, and the namespaces that could be listed."""
    uids, listed = set(), []
    for namespace in namespaces:
        try:
            manifests = await cluster.list(names.KIND, namespace)
        except ClusterError as error:
            log.warning("the resync leaves out namespace %s: %s", namespace, error)
            continue
        for manifest in manifests:
            add(RunKey(namespace, manifest["metadata"]["name"]))
            uids.add(manifest["metadata"]["uid"])
        listed.append(namespace)
    return uids, tuple(listed)
