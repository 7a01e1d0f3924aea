"""What no watch tells: heartbeats in storage, and everything once more from time to time.

Running trainers keep one small file each below ``live/``. One listing shows them all; only what
changed is read. The resync looks at every run every few minutes, so that nothing depends on having
seen an event.
"""

import asyncio
import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import Final

from flashrun.api import names
from flashrun.api.records import Heartbeat
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError
from flashrun.controller.queue import RunKey
from flashrun.store import Store
from flashrun.store_errors import Corrupt, KeyNotFound, StoreError

POLL_SECONDS: Final = 3.0
RESYNC_SECONDS: Final = 300.0
SLOWEST_POLL_SECONDS: Final = 60.0
ORPHAN_AGE: Final = timedelta(minutes=15)
"""Age from which the heartbeat of a run that is gone is swept."""

Add = Callable[[RunKey], None]
log = logging.getLogger(__name__)


class HeartbeatPoller:
    """The newest sign of life of every running trainer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._etags: dict[str, str] = {}
        self._live: dict[str, Heartbeat] = {}

    def of(self, uid: str) -> Heartbeat | None:
        """Return the newest heartbeat of a run, as of the last poll."""
        return self._live.get(uid)

    async def run(self, add: Add) -> None:
        """Poll for ever; each change makes its run due. A store in trouble is asked less often."""
        pause = POLL_SECONDS
        while True:
            try:
                for key in await asyncio.to_thread(self.poll):
                    add(key)
                pause = POLL_SECONDS
            except StoreError as error:
                log.warning("heartbeats cannot be read: %s", error)
                pause = min(pause * 2, SLOWEST_POLL_SECONDS)
            await asyncio.sleep(pause)

    def poll(self) -> list[RunKey]:
        """Look once; returns the runs with a new heartbeat, or with one that went away."""
        etags = {
            names.heartbeat_uid(entry.key): entry.etag
            for entry in self._store.list(names.HEARTBEAT_PREFIX)
        }
        gone = [self._live.pop(uid) for uid in self._live.keys() - etags.keys()]
        self._etags = {uid: etag for uid, etag in self._etags.items() if uid in etags}
        changed = []
        for uid, etag in etags.items():
            if self._etags.get(uid) != etag and (heartbeat := self._read(uid)) is not None:
                self._live[uid] = heartbeat
                changed.append(heartbeat)
            self._etags[uid] = etag
        return [
            RunKey(heartbeat.run.namespace, heartbeat.run.name) for heartbeat in (*gone, *changed)
        ]

    def sweep(self, uids: AbstractSet[str], namespaces: tuple[str, ...]) -> None:
        """Delete old heartbeats of runs that are gone: their trainers were ended with them."""
        limit = datetime.now(UTC) - ORPHAN_AGE
        orphans = [
            names.heartbeat_key(uid)
            for uid, heartbeat in self._live.items()
            if uid not in uids
            and heartbeat.run.namespace in namespaces
            and heartbeat.updated < limit
        ]
        if orphans:
            self._store.delete(orphans)

    def _read(self, uid: str) -> Heartbeat | None:
        """Return a heartbeat that is one: a trainer writes it, so it is checked.

        A store in trouble ends the poll; what was not read is then read by the next one.
        """
        try:
            heartbeat = self._store.get_json(names.heartbeat_key(uid), Heartbeat)
        except KeyNotFound:
            return None
        except Corrupt as error:
            log.warning("%s", error)
            return None
        if heartbeat.run.uid != uid:
            log.warning("the heartbeat of run %s names another run; it is ignored", uid)
            return None
        return heartbeat


async def resync(
    cluster: Cluster,
    namespaces: tuple[str, ...],
    add: Add,
    keep: Callable[[AbstractSet[str]], None],
) -> None:
    """Make every run of the served namespaces due, now and every few minutes.

    ``keep`` is told the uids of all runs there are, in another thread: what belongs to none of
    them may go.
    """
    while True:
        try:
            uids = set()
            for namespace in namespaces:
                for manifest in await cluster.list(names.KIND, namespace):
                    add(RunKey(namespace, manifest["metadata"]["name"]))
                    uids.add(manifest["metadata"]["uid"])
            await asyncio.to_thread(keep, uids)
        except (ClusterError, StoreError) as error:
            log.warning("not every run could be looked at: %s", error)
        await asyncio.sleep(RESYNC_SECONDS)
