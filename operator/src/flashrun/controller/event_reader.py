"""Reads what Events say about objects that wait.

Events are not watched: an operator may lack that right, and one watch that is refused would end all
others. A list of the Events about one object costs the API server a look at all of the namespace.
When many objects wait, one list therefore answers for all of them.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final

from flashrun.cluster import Cluster
from flashrun.plan.notices import EPOCH, newest_time, read_notices
from flashrun.plan.types import Notice, Object

EVENTS_LIMIT: Final = 32
"""Most Events about one object that are kept; people may write any number of them."""
FEW_OBJECTS: Final = 4
"""So many objects that wait in a namespace are asked about one by one."""
FRESH_SECONDS: Final = 5.0
"""How long one list answers for all."""
SHARE: Final = 20.0
"""A list that takes long answers for so many times as long."""
LISTED_PAGE: Final = 250
LISTED_LIMIT: Final = 20_000
"""Most Events of a namespace that are read at once."""
OTHERS_LIMIT: Final = 500
"""Most objects about which Events are kept though nobody has asked about them yet."""
YOUNG: Final = timedelta(seconds=60)
"""How much older than the newest Event of the list before theirs may be. The API server keeps
Events for an hour, and most are about objects that have ended.
"""
SUBJECT_EVENTS: Final = 8
"""Most Events about each of them that are kept: the newest."""
_ASKED_SECONDS: Final = 60.0


class _Namespace:
    """What is known of the Events of one namespace."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.asked: dict[str, float] = {}
        """Uid of an object that waits → when it was last asked about."""
        self.found: dict[str, tuple[Notice, ...]] = {}
        self.valid_until = float("-inf")
        self.newest = EPOCH
        """When the newest Event of the last list was reported."""


class EventReader:
    """Reads Events for all runs; all calls are made in one event loop."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._clock = cluster, clock
        self._namespaces: dict[str, _Namespace] = {}

    async def read(
        self, namespace: str, uids: Collection[str], *, cached: bool
    ) -> dict[str, tuple[Notice, ...]]:
        """Return what Events say about each of these objects, the newest first.

        With ``cached``, it may be as it was a few seconds ago.

        Raises:
            ClusterError: Events cannot be listed.
        """
        if not uids:
            return {}
        known, now = self._namespaces.setdefault(namespace, _Namespace()), self._clock()
        known.asked = {
            uid: moment for uid, moment in known.asked.items() if now - moment < _ASKED_SECONDS
        }
        known.asked.update(dict.fromkeys(uids, now))
        if not cached or len(known.asked) <= FEW_OBJECTS:
            return {uid: await self._read_one(namespace, uid) for uid in uids}
        async with known.lock:
            if self._clock() >= known.valid_until:
                await self._read_all(namespace, known)
        return {uid: known.found.get(uid, ()) for uid in uids}

    async def _read_one(self, namespace: str, uid: str) -> tuple[Notice, ...]:
        fields = {"involvedObject.uid": uid}
        events = await self._cluster.newest(
            "Event", namespace, {}, EVENTS_LIMIT, newest_time, fields=fields
        )
        return read_notices(events)

    async def _read_all(self, namespace: str, known: _Namespace) -> None:
        began, number = self._clock(), 0
        asked: dict[str, list[Object]] = {}
        others: dict[str, list[Object]] = {}
        young, newest = known.newest - YOUNG, known.newest
        try:
            async for event in self._cluster.each("Event", namespace, LISTED_PAGE):
                number += 1
                subject, reported = event.get("involvedObject") or {}, newest_time(event)
                newest = max(newest, reported)
                if subject.get("kind") in ("Job", "Pod"):
                    uid = str(subject.get("uid") or "")
                    if uid in known.asked:
                        _keep(asked, uid, event)
                    elif reported > young and (uid in others or len(others) < OTHERS_LIMIT):
                        _keep(others, uid, event)
                if number >= LISTED_LIMIT:
                    break
            known.found = {uid: read_notices(kept) for uid, kept in (others | asked).items()}
            known.newest = newest
        finally:  # a list that fails is not tried again by each of the others
            ended = self._clock()
            known.valid_until = ended + max(FRESH_SECONDS, SHARE * (ended - began))


def _keep(found: dict[str, list[Object]], uid: str, event: Object) -> None:
    """Keep an Event among the newest ones about its object."""
    events = found.setdefault(uid, [])
    events.append(event)
    if len(events) > SUBJECT_EVENTS:
        events.remove(min(events, key=newest_time))
