"""FlashRuns, Jobs and pods as the watches have shown them, so that a pass need not read them.

The watch's thread writes, passes read. What is kept is bounded for each object, each run and each
namespace. The cache never guesses: where it may lack something, it answers None, and the caller
reads from the API server. It lacks something while a list is not complete, when a watch has been
silent for too long, when an object is too large to be kept, and until the watch has shown what this
process itself wrote.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from flashrun.api import names
from flashrun.controller.queue import RunKey
from flashrun.controller.watched_objects import (
    WATCHED_KINDS,
    WatchedObject,
    read_text,
    version_number,
)
from flashrun.plan.types import Object

FRESH_SECONDS: Final = 100.0
"""How long a watch may be silent; the API server sends a bookmark every minute."""
RUN_BYTES: Final = 256 * 1024
"""Most text that is kept of one run: of itself, its Jobs and its pods."""
NAMESPACE_BYTES: Final = 32 * 1024 * 1024
"""Most text that is kept of one namespace."""
TOTAL_BYTES: Final = 96 * 1024 * 1024
"""Most text of all namespaces; each has an equal part."""
OBJECTS_LIMIT: Final = 20_000
"""Most objects of one kind and namespace that are kept."""
CHILDREN_LIMIT: Final = 64
"""Most Jobs, and most pods, of one run that are answered."""
WRITTEN_LIMIT: Final = 1_000
"""After so many notes about own writes, those that the watch has shown are dropped."""


class _Collection:
    """The objects of one kind in one namespace."""

    def __init__(self) -> None:
        self.objects: dict[str, WatchedObject] = {}
        self.by_run: dict[str, dict[str, None]] = {}
        """Uid of a run → names of its objects, in their order."""
        self.listing: set[str] | None = None
        """Names that a list which goes on has shown."""
        self.listed = False
        """Whether a list has been complete, and no other one has begun since."""
        self.flawed = False
        """Whether an object of this list, or since, could not be kept at all."""
        self.position = -1
        """Version up to which the watch has shown everything."""
        self.heard = float("-inf")
        self.written: dict[str, int] = {}
        """Uid of a run → version of what this process wrote, and the watch has not shown."""


class ObjectCache:
    """The objects of all namespaces; every method may be called in any thread."""

    def __init__(self, namespaces: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock, self._clock = threading.Lock(), clock
        self._namespace_bytes = _share(namespaces)
        self._total = 0
        """Bytes of text of all namespaces: more than their shares after namespaces have come."""
        self._collections: dict[tuple[str, str], _Collection] = {}
        self._used: Counter[tuple[str, str | None]] = Counter()
        """Bytes of text of each namespace, and in it of each run by its uid."""

    # --- what the watches show ----------------------------------------------------------------

    def begin_list(self, kind: str, namespace: str) -> None:
        """Note that a list begins: what it does not show is gone when it ends."""
        with self._lock:
            collection = self._collection(kind, namespace)
            collection.listed = collection.flawed = False
            collection.listing = set()

    def end_list(self, kind: str, namespace: str, version: int) -> None:
        """Note that a list is complete, and the version that it shows."""
        with self._lock:
            collection = self._collection(kind, namespace)
            if collection.listing is None:
                return
            for name in collection.objects.keys() - collection.listing:
                self._drop(collection, namespace, name)
            collection.listing, collection.listed = None, True
            collection.position, collection.heard = version, self._clock()

    def put(self, kind: str, namespace: str, item: WatchedObject) -> WatchedObject | None:
        """Keep an object as it is now; return it as it was before."""
        with self._lock:
            collection = self._collection(kind, namespace)
            before = self._drop(collection, namespace, item.name)
            if len(collection.objects) >= OBJECTS_LIMIT:
                collection.flawed = True
                return before
            item = self._bounded(namespace, item)
            since = self._clock() if before is None or before.uid != item.uid else before.since
            collection.objects[item.name] = item._replace(since=since)
            collection.by_run.setdefault(item.run_uid, {})[item.name] = None
            if collection.listing is not None:
                collection.listing.add(item.name)
            return before

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Forget an object that was deleted."""
        with self._lock:
            self._drop(self._collection(kind, namespace), namespace, name)

    def advance(self, kind: str, namespace: str, version: int) -> None:
        """Note that the watch has shown everything up to ``version``."""
        with self._lock:
            collection = self._collection(kind, namespace)
            collection.position = max(collection.position, version)
            collection.heard = self._clock()

    def opened(self, kind: str, namespace: str) -> None:
        """Note that the API server has begun to answer a watch."""
        with self._lock:
            self._collection(kind, namespace).heard = self._clock()

    def distrust(self, kind: str, namespace: str) -> None:
        """Note that an object could not be read: until the next list, not all are known."""
        with self._lock:
            self._collection(kind, namespace).flawed = True

    def follow_namespaces(self, namespaces: tuple[str, ...]) -> None:
        """Share the room between ``namespaces``, and forget all objects of others."""
        with self._lock:
            self._namespace_bytes = _share(len(namespaces))
            for kind, namespace in list(self._collections):
                if namespace not in namespaces:
                    del self._collections[kind, namespace]
            for place in [place for place in self._used if place[0] not in namespaces]:
                size = self._used.pop(place)
                self._total -= size if place[1] is None else 0

    # --- what this process writes -------------------------------------------------------------

    def wrote(self, kind: str, namespace: str, run_uid: str, metadata: Object) -> None:
        """Note the metadata of an object of a run as this process left it.

        Until the watch has shown it, the cache has no answer about objects of this kind and run.
        """
        if kind not in WATCHED_KINDS:
            return
        version = version_number(metadata.get("resourceVersion"))
        with self._lock:
            collection = self._collection(kind, namespace)
            written = collection.written
            written[run_uid] = (
                max(version, written.get(run_uid, 0)) if version >= 0 else sys.maxsize
            )
            if len(written) > WRITTEN_LIMIT:
                collection.written = {
                    uid: own for uid, own in written.items() if own > collection.position
                }

    def is_own_write(self, namespace: str, run: WatchedObject) -> bool:
        """Return whether a run is as this process has written it."""
        with self._lock:
            written = self._collection(names.KIND, namespace).written
            return written.get(run.uid, -1) == run.version >= 0

    # --- what passes read ---------------------------------------------------------------------

    def run(self, key: RunKey) -> Object | None:
        """Return a run that goes on; None: it has to be read.

        Raises:
            TooLarge: it has not begun, and is larger than a run may be.
        """
        with self._lock:
            collection = self._collection(names.KIND, key.namespace)
            item = collection.objects.get(key.name)
            if item is None or item.text is None or not self._knows(collection, item.uid):
                return None
            text = item.text
        return read_text(names.KIND, text)

    def known_since(self, key: RunKey) -> float | None:
        """Return when a run was first shown, by the clock of this cache; None: it is not known."""
        with self._lock:
            item = self._collection(names.KIND, key.namespace).objects.get(key.name)
            return item.since if item is not None else None

    def phase(self, key: RunKey) -> str:
        """Return the phase of a run as it was written; empty without one, or if it is not known."""
        with self._lock:
            item = self._collection(names.KIND, key.namespace).objects.get(key.name)
            return item.phase if item is not None else ""

    def children(self, kind: str, namespace: str, run_uid: str) -> tuple[Object, ...] | None:
        """Return the Jobs or pods with the label of a run, by name; None: they have to be read."""
        with self._lock:
            collection = self._collection(kind, namespace)
            if not self._knows(collection, run_uid):
                return None
            found = sorted(collection.by_run.get(run_uid, ()))
            texts = [collection.objects[name].text for name in found]
        if len(texts) > CHILDREN_LIMIT or None in texts:
            return None
        return tuple(read_text(kind, text) for text in texts if text is not None)

    def is_settled(self, key: RunKey, version: str | None = None) -> bool:
        """Return whether a run has ended, and this state is not older than ``version``."""
        with self._lock:
            item = self._collection(names.KIND, key.namespace).objects.get(key.name)
            return item is not None and item.settled and version in (None, str(item.version))

    def is_listed(self, namespace: str) -> bool:
        """Return whether the lists of a namespace are complete."""
        with self._lock:
            return all(self._collection(kind, namespace).listed for kind in WATCHED_KINDS)

    def unsettled(self, namespace: str) -> tuple[RunKey, ...]:
        """Return the runs of a namespace that go on, and those whose Jobs or pods do."""
        with self._lock:
            return tuple(RunKey(namespace, name) for name in self._unsettled(namespace))

    def is_complete(self, kind: str, namespace: str) -> bool:
        """Return whether a list has been complete, and nothing was left out since."""
        with self._lock:
            collection = self._collection(kind, namespace)
            return collection.listed and not collection.flawed

    def shown(self, kind: str, namespace: str) -> dict[str, WatchedObject]:
        """Return all objects of a kind, by name."""
        with self._lock:
            return dict(self._collection(kind, namespace).objects)

    def phases(self) -> Counter[tuple[str, str]]:
        """Return how many runs there are by namespace and phase, as it was written."""
        with self._lock:
            return Counter(
                (namespace, item.phase)
                for (kind, namespace), collection in self._collections.items()
                if kind == names.KIND
                for item in collection.objects.values()
            )

    def longest_silence(self, namespaces: tuple[str, ...]) -> float:
        """Return for how many seconds the most silent watch has shown nothing."""
        with self._lock:
            heard = [
                self._collection(kind, namespace).heard
                for kind in WATCHED_KINDS
                for namespace in namespaces
            ]
            return self._clock() - min(heard, default=self._clock())

    # --- inside -------------------------------------------------------------------------------

    def _collection(self, kind: str, namespace: str) -> _Collection:
        return self._collections.setdefault((kind, namespace), _Collection())

    def _knows(self, collection: _Collection, run_uid: str) -> bool:
        """Return whether the collection has all that concerns a run, as it is now."""
        if not collection.listed or collection.flawed:
            return False
        if self._clock() - collection.heard > FRESH_SECONDS:
            return False
        if collection.written.get(run_uid, -1) > collection.position:
            return False
        collection.written.pop(run_uid, None)
        return True

    def _unsettled(self, namespace: str) -> Iterator[str]:
        runs = self._collection(names.KIND, namespace)
        known = {item.uid: item for item in runs.objects.values()}
        due = {item.name: None for item in known.values() if not item.settled}
        for kind in WATCHED_KINDS:
            for item in self._collection(kind, namespace).objects.values():
                run = known.get(item.run_uid)
                if run is not None and not item.settled:
                    due[run.name] = None
        yield from due

    def _drop(self, collection: _Collection, namespace: str, name: str) -> WatchedObject | None:
        item = collection.objects.pop(name, None)
        if item is None:
            return None
        siblings = collection.by_run[item.run_uid]
        del siblings[name]
        if not siblings:
            del collection.by_run[item.run_uid]
        self._count(namespace, item, -1)
        return item

    def _bounded(self, namespace: str, item: WatchedObject) -> WatchedObject:
        """Return ``item``, without its text where there is no room for it."""
        size = len(item.text or b"")
        no_room = (
            self._used[namespace, item.run_uid] + size > RUN_BYTES
            or self._used[namespace, None] + size > self._namespace_bytes
            or self._total + size > TOTAL_BYTES
        )
        item = item._replace(text=None) if no_room else item
        self._count(namespace, item, 1)
        return item

    def _count(self, namespace: str, item: WatchedObject, sign: int) -> None:
        self._total += sign * len(item.text or b"")
        for place in ((namespace, None), (namespace, item.run_uid)):
            self._used[place] += sign * len(item.text or b"")
            if not self._used[place]:
                del self._used[place]


def _share(namespaces: int) -> int:
    """Return the room of one of so many namespaces."""
    return min(NAMESPACE_BYTES, TOTAL_BYTES // max(1, namespaces))
