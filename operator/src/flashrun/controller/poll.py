"""Polling: heartbeats in S3, and a periodic full resync.

Each running trainer writes one small heartbeat file; one listing shows all of them, and only those
that changed are read. The resync makes every run due every few minutes, so that a lost event costs
only time.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol, Self

from flashrun.api import names
from flashrun.api.records import STEP_SECONDS, Heartbeat, RunIdentity
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError
from flashrun.controller import json_logs, operator_metrics
from flashrun.controller.queue import RunKey
from flashrun.controller.storage_threads import call_heartbeats, call_storage
from flashrun.plan.progress_status import with_shown_metrics
from flashrun.store import Store
from flashrun.store_errors import (
    Corrupt,
    KeyNotFound,
    StoreError,
    Unauthorized,
    Unavailable,
    Unsuitable,
)
from flashrun.store_listing import Entry

POLL_SECONDS: Final = 3.0
RESYNC_SECONDS: Final = 300.0
SLOWEST_POLL_SECONDS: Final = 60.0
READERS: Final = 8
"""Heartbeats that are read at the same time."""
KEYS_LIMIT: Final = 100_000
"""Most keys below the prefix of heartbeats that one poll lists."""
UNKNOWN_LIMIT: Final = 500
"""Most of them that are read while no known run has their uid."""
UNREADABLE_LIMIT: Final = 2 * READERS
"""After so many heartbeats that cannot be read, a poll leaves the others to the next one."""
LONGEST_RETRY_SECONDS: Final = 60.0
FEW_RUNS: Final = 50
"""So many runs are looked at without a wait for the first lists of the watches."""
ORPHAN_AGE: Final = timedelta(minutes=15)
"""Age from which the heartbeat of a deleted run is deleted."""

_LONGEST_PROBLEM: Final = 512

Add = Callable[[RunKey], None]


class StartLists(Protocol):
    """What the watches know of runs."""

    async def wait(self) -> None:
        """Wait until they have listed everything, but not for long."""

    def is_settled(self, key: RunKey, version: str | None) -> bool:
        """Return whether nothing has to be done for a run in this version."""


Known = tuple[RunIdentity, ...]
"""Runs that storage remembers."""
log = logging.getLogger(__name__)


class _Unreadable(NamedTuple):
    """A heartbeat that exists and cannot be read, and when it is tried again."""

    etag: str
    pause: float
    retry_at: float

    def seen(self, etag: str) -> Self:
        """Return this with the ETag that the newest listing shows."""
        return self._replace(etag=etag)


class HeartbeatPoller:
    """The newest heartbeat of every running trainer."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.monotonic,
        prove: Callable[[], None] | None = None,
    ) -> None:
        """``prove`` raises ``Unsuitable`` while storage lacks something that runs need."""
        self._store, self._clock, self._prove = store, clock, prove
        self.readable_seconds = 0.0
        """Time during which every poll could read storage: only in it can a trainer be silent."""
        self._read_at: float | None = None
        self.problem = "the heartbeats in storage have not been read yet"
        """Why the last poll could not read storage; empty when it could."""
        self.unsuitable = False
        """Whether ``problem`` is that storage lacks something that runs need."""
        self._etags: dict[str, str] = {}
        self._heartbeats: dict[str, Heartbeat] = {}
        self._refused: dict[str, str] = {}
        self._unreadable: dict[str, _Unreadable] = {}
        self._known: dict[str, RunKey] = {}
        self._known_before: set[str] = set()
        """Runs whose heartbeats were known when orphans were last deleted."""

    def expect(self, uid: str, run: RunKey) -> None:
        """Make a run known: from now on it is due also when its first heartbeat is refused."""
        self._known[uid] = run

    def newest(self, uid: str) -> Heartbeat | None:
        """Return the newest heartbeat of a run, as of the last poll."""
        return self._heartbeats.get(uid)

    def is_fresh(self, uid: str) -> bool:
        """Return whether there is a heartbeat of this run that is not old."""
        heartbeat = self._heartbeats.get(uid)
        return heartbeat is not None and heartbeat.updated > datetime.now(UTC) - ORPHAN_AGE

    def unread_etag(self, uid: str) -> str:
        """Return the ETag of a heartbeat that exists and cannot be read; else an empty string."""
        unreadable = self._unreadable.get(uid)
        return unreadable.etag if unreadable else ""

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
                log.warning("%s", _log_sentence(error))
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
                if self._prove is not None:
                    self._prove()
            changed = self._poll()
        except StoreError as error:
            self.unsuitable = isinstance(error, Unsuitable)
            self.problem, self._read_at = str(error), None
            raise
        now = self._clock()
        if self._read_at is not None:
            self.readable_seconds += max(0.0, now - self._read_at)
        self.problem, self.unsuitable, self._read_at = "", False, now
        return changed

    def _poll(self) -> list[RunKey]:
        entries = self._list()
        etags = {uid: entry.etag for uid, entry in entries.items()}
        removed = [self._heartbeats.pop(uid) for uid in self._heartbeats.keys() - etags.keys()]
        self._etags = {uid: etag for uid, etag in self._etags.items() if uid in etags}
        self._refused = {uid: why for uid, why in self._refused.items() if uid in etags}
        self._unreadable = {
            uid: item.seen(etags[uid]) for uid, item in self._unreadable.items() if uid in etags
        }
        now = self._clock()
        new = {
            uid: entries[uid]
            for uid, etag in etags.items()
            if self._etags.get(uid) != etag
            and (uid not in self._unreadable or now >= self._unreadable[uid].retry_at)
        }
        due = [_key(heartbeat) for heartbeat in removed]
        for uid, heartbeat in self._read_all(new):
            if heartbeat is not None:
                self._heartbeats[uid] = heartbeat
                due.append(_key(heartbeat))
            elif uid in self._refused and (run := self._key_of(uid)) is not None:
                due.append(run)  # its status shows the reason
            if uid not in self._unreadable:
                self._etags[uid] = etags[uid]
        return due

    def _key_of(self, uid: str) -> RunKey | None:
        """Return the run whose heartbeat cannot be read now, if anything names it."""
        heartbeat = self._heartbeats.get(uid)
        return self._known.get(uid) or (_key(heartbeat) if heartbeat is not None else None)

    def _list(self) -> dict[str, Entry]:
        """Return the entries by uid: of all known runs, and of a limited number of others.

        Raises:
            Corrupt: there are so many that those of known runs may be missing.
        """
        entries: dict[str, Entry] = {}
        unknown = 0
        for count, entry in enumerate(self._store.list(names.HEARTBEAT_PREFIX), 1):
            if count > KEYS_LIMIT:
                raise Corrupt(f"there are more than {KEYS_LIMIT:,} keys below live/; remove some")
            uid = names.heartbeat_uid(entry.key)
            unknown += uid not in self._known
            if uid in self._known or unknown <= UNKNOWN_LIMIT:
                entries[uid] = entry
        return entries

    def _read_all(self, entries: dict[str, Entry]) -> Iterator[tuple[str, Heartbeat | None]]:
        """Read several heartbeats at the same time; yield each with its run's uid.

        One that cannot be read costs only its run, unless storage as a whole cannot be read.

        Raises:
            Unavailable, Unauthorized: storage has a problem; the next poll reads the others.
        """
        unreadable = 0
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="heartbeat")
        try:
            for uid, result in zip(
                entries, pool.map(self._try_to_read, entries, entries.values()), strict=True
            ):
                if not isinstance(result, StoreError):
                    self._unreadable.pop(uid, None)
                    yield uid, result
                    continue
                if not unreadable and not self._can_read():
                    raise result
                unreadable += 1
                self._defer(uid, entries[uid], result)
                yield uid, None
                if unreadable == UNREADABLE_LIMIT:
                    return
        finally:
            pool.shutdown(cancel_futures=True)

    def _can_read(self) -> bool:
        """Say whether storage answers a request for another key, which does not exist."""
        try:
            self._store.exists(f"{names.HEARTBEAT_PREFIX}probe")
        except StoreError:
            return False
        return True

    def _defer(self, uid: str, entry: Entry, error: StoreError) -> None:
        """Note that a heartbeat cannot be read; the pauses between attempts grow."""
        before = self._unreadable.get(uid)
        pause = min(LONGEST_RETRY_SECONDS, 2 * before.pause if before else POLL_SECONDS)
        self._unreadable[uid] = _Unreadable(entry.etag, pause, self._clock() + pause)
        self._refuse(uid, str(error))

    def _refuse(self, uid: str, problem: str) -> None:
        operator_metrics.RECORDS_REFUSED.labels(Heartbeat.__name__).inc()
        with self._about(uid):
            log.warning("the heartbeat of run %s is ignored: %s", uid, problem)
        self._refused[uid] = f"The heartbeat is ignored: {problem}."[:_LONGEST_PROBLEM]

    def _about(self, uid: str) -> AbstractContextManager[None]:
        run = self._known.get(uid)
        return json_logs.about(f"{run.namespace}/{run.name}" if run else "", uid)

    def delete_orphans(
        self,
        uids: AbstractSet[str],
        namespaces: tuple[str, ...],
        record_deletion: Callable[[RunIdentity], None],
    ) -> None:
        """Delete old heartbeats in ``namespaces`` of runs that are not in ``uids``.

        ``record_deletion`` is called with each of these runs before: nobody else may have noticed
        that it was deleted. A heartbeat counts when it was known at the previous call already: if
        its run existed, it would be in ``uids``.

        Raises:
            StoreError: storage cannot be written; the next call tries again.
        """
        # A run that exists is expected again.
        self._known = {uid: run for uid, run in self._known.copy().items() if uid in uids}
        limit = datetime.now(UTC) - ORPHAN_AGE
        heartbeats = dict(self._heartbeats)
        orphans = [
            heartbeat.run
            for uid, heartbeat in heartbeats.items()
            if uid in self._known_before
            and uid not in uids
            and heartbeat.run.namespace in namespaces
            and heartbeat.updated < limit
        ]
        self._known_before = set(heartbeats)
        for run in orphans:
            record_deletion(run)
        if orphans:
            self._store.delete([names.heartbeat_key(run.uid) for run in orphans])

    def _try_to_read(self, uid: str, entry: Entry) -> Heartbeat | StoreError | None:
        """Return a valid heartbeat of this run, or None; ``refused`` has the reason.

        Whatever is wrong with one heartbeat costs no other run anything. An error of storage, which
        may concern more than this one, is returned.
        """
        self._refused.pop(uid, None)
        try:
            return self._read_valid(uid, entry)
        except KeyNotFound:
            return None
        except (Unavailable, Unauthorized) as error:
            return error
        except StoreError as error:
            self._refuse(uid, str(error))
        except Exception as error:
            with self._about(uid):
                log.exception("an unexpected error while the heartbeat of run %s was read", uid)
            self._refuse(uid, f"{entry.key} cannot be read ({type(error).__name__})")
        return None

    def _read_valid(self, uid: str, entry: Entry) -> Heartbeat:
        if entry.size > Heartbeat.max_bytes:
            raise Corrupt(f"{entry.key} is longer than {Heartbeat.max_bytes} bytes")
        heartbeat = self._store.get_json(entry.key, Heartbeat)
        if heartbeat.run.uid != uid:
            raise Corrupt(f"{entry.key} names another run")
        self._observe_step(uid, heartbeat)
        return with_shown_metrics(heartbeat)

    def _observe_step(self, uid: str, heartbeat: Heartbeat) -> None:
        """Count the newest step of a known run, once."""
        run, before, now = self._known.get(uid), self._heartbeats.get(uid), heartbeat.progress
        if run is None or now is None or not now.step:
            return
        was = before.progress.step if before is not None and before.progress is not None else 0
        if now.step != was:
            operator_metrics.observe_step(run.namespace, now.metrics.get(STEP_SECONDS))


def _log_sentence(error: StoreError) -> str:
    return str(error) if isinstance(error, Unsuitable) else f"heartbeats cannot be read: {error}"


def _key(heartbeat: Heartbeat) -> RunKey:
    return RunKey(heartbeat.run.namespace, heartbeat.run.name)


async def resync(
    cluster: Cluster,
    namespaces: Callable[[], tuple[str, ...]],
    add: Add,
    read_known: Callable[[], Known],
    clean_up: Callable[[Known, AbstractSet[str], tuple[str, ...]], None],
    lists: StartLists | None = None,
) -> None:
    """Make every run of the served namespaces due, now and every few minutes.

    A run that ``lists`` knows as settled in its present version is left out: it costs nothing. A
    namespace that cannot be listed costs the others nothing. Both functions are called in another
    thread: ``read_known`` before runs are listed, ``clean_up`` afterwards with what it returned,
    the uids of all existing runs and the namespaces that were listed, to delete the data of other
    runs there.
    """
    while True:
        known: Known = ()
        try:
            known = await call_storage(read_known)
        except StoreError as error:
            log.warning("runs that were deleted cannot be missed now: %s", error)
        try:
            due, existing = await _list_runs(cluster, namespaces())
            await add_all(due, add, lists)
            await call_storage(clean_up, known, *existing)
        except StoreError as error:
            log.warning("the resync is incomplete and will be repeated: %s", error)
        await asyncio.sleep(RESYNC_SECONDS)


async def add_all(
    runs: Mapping[RunKey, str | None], add: Add, lists: StartLists | None = None
) -> None:
    """Make runs due, given with their versions; many of them only when the watches know them."""
    if lists is not None and len(runs) > FEW_RUNS:
        await lists.wait()
    for key, version in runs.items():
        if lists is None or not lists.is_settled(key, version):
            add(key)


async def _list_runs(
    cluster: Cluster, namespaces: tuple[str, ...]
) -> tuple[dict[RunKey, str | None], tuple[set[str], tuple[str, ...]]]:
    """Return all runs with their versions; their uids, and the namespaces that could be listed."""
    runs, uids, listed = dict[RunKey, str | None](), set(), []
    for namespace in namespaces:
        try:
            async for metadata in cluster.list_metadata(names.KIND, namespace):
                runs[RunKey(namespace, metadata["name"])] = metadata.get("resourceVersion")
                uids.add(metadata["uid"])
        except ClusterError as error:
            log.warning("the resync leaves out namespace %s: %s", namespace, error)
            continue
        listed.append(namespace)
    return runs, (uids, tuple(listed))
