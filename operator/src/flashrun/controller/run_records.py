"""Bounded reading of what one run wrote to storage.

``RunRecords`` is made for one look at one run. It counts what it lists, refuses records that break
their model, and keeps one sentence about each kind of trouble for the run's status. Manifests never
change; ``ManifestCache`` keeps them between looks, within a budget for each run and for all.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from flashrun.api.record_reader import RecordModel
from flashrun.api.records import Manifest
from flashrun.controller import metrics
from flashrun.plan.commits import CommitMarker
from flashrun.store import Entry, Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, StoreError, Unauthorized

LISTED_LIMIT: Final = 20_000
"""Most keys of one run that are listed in one look."""
CLAIMS_LIMIT: Final = 256
"""Most claims of one run that are read: those of the newest attempts."""
MANIFESTS_LIMIT: Final = 2_000
"""Most manifests of one run that are read: those of the newest checkpoints."""
MANIFEST_BYTES: Final = 2 * 1024 * 1024
"""Longest JSON of all these manifests together."""
CACHED_BYTES: Final = 32 * 1024 * 1024
"""JSON of all manifests in the cache; beyond it, the runs that were read first are forgotten."""
_LONGEST_PROBLEM: Final = 512

log = logging.getLogger(__name__)


class ManifestCache:
    """Manifests by run, or why one was refused."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: dict[str, dict[tuple[str, str], Manifest | str]] = {}
        self._sizes: dict[str, int] = {}

    def find(self, uid: str, entry: Entry) -> Manifest | str | None:
        """Return the manifest of a run at ``entry``, or why it was refused; None: unknown."""
        return self._runs.get(uid, {}).get((entry.key, entry.etag))

    def keep(self, uid: str, entry: Entry, manifest: Manifest | str) -> None:
        """Keep a manifest, or why it was refused.

        Beyond its budget, a run's own manifests are forgotten first, then those of other runs.
        """
        size = len(manifest) if isinstance(manifest, str) else entry.size
        with self._lock:
            if self._sizes.get(uid, 0) + size > MANIFEST_BYTES:
                self.forget(uid)
            self._runs.setdefault(uid, {})[(entry.key, entry.etag)] = manifest
            self._sizes[uid] = self._sizes.get(uid, 0) + size
            while sum(self._sizes.values()) > CACHED_BYTES:
                self.forget(next(iter(self._sizes)))

    def forget(self, uid: str) -> None:
        """Forget the manifests of a run."""
        with self._lock:
            self._runs.pop(uid, None)
            self._sizes.pop(uid, None)

    def forget_all_except(self, uids: Iterable[str]) -> None:
        """Forget the manifests of all runs but those in ``uids``."""
        with self._lock:
            for uid in self._runs.keys() - set(uids):
                self.forget(uid)


class RunRecords:
    """Reads the records of one run, within its bounds."""

    def __init__(self, store: Store, manifests: ManifestCache) -> None:
        self._store, self._cache = store, manifests
        self._room = LISTED_LIMIT
        self._manifest_count, self._manifest_bytes = MANIFESTS_LIMIT, MANIFEST_BYTES
        self.refused = ""
        """One sentence about the first record that is ignored; empty when there is none."""
        self.too_many_files = ""
        """One sentence when there are more files than are read."""

    def list_keys(self, prefix: str, recursive: bool = True) -> dict[str, Entry]:
        """Return the entries below ``prefix`` by key, as far as the bound allows."""
        entries: dict[str, Entry] = {}
        for entry in self._store.list(prefix, recursive=recursive):
            if not self._room:
                self.too_many_files = (
                    f"More than {LISTED_LIMIT} files are stored below {prefix}; the rest is "
                    "ignored: delete files that are not needed."
                )
                break
            self._room -= 1
            entries[entry.key] = entry
        return entries

    def read(self, key: str, model: type[RecordModel]) -> RecordModel | None:
        """Return a valid record, or None.

        Raises:
            StoreError: storage itself has a problem.
        """
        record = self._read(key, model)
        if not isinstance(record, str):
            return record
        self._refuse(record)
        return None

    def newest_claims(self, numbers: Iterable[int]) -> list[int]:
        """Return the attempts whose claims are read, in their order."""
        ordered = sorted(numbers)
        if len(ordered) > CLAIMS_LIMIT:
            self.too_many_files = f"Only the newest {CLAIMS_LIMIT} attempts are read."
        return ordered[-CLAIMS_LIMIT:]

    def manifests(
        self, markers: Iterable[CommitMarker], entries: dict[str, Entry]
    ) -> Iterator[tuple[CommitMarker, Manifest | None]]:
        """Yield each marker with its manifest, or None; the newest ones as far as bounds allow."""
        for marker in sorted(markers, key=lambda m: (m.step or 0, m.attempt or 0), reverse=True):
            entry = entries[marker.key]
            if entry.size > Manifest.max_bytes:
                self._refuse(f"{entry.key} is longer than {Manifest.max_bytes} bytes")
                continue
            if entry.size > self._manifest_bytes or not self._manifest_count:
                self.too_many_files = (
                    f"The run has more manifests than {MANIFESTS_LIMIT}, or than "
                    f"{MANIFEST_BYTES} bytes; older checkpoints are ignored."
                )
                return
            self._manifest_bytes -= entry.size
            self._manifest_count -= 1
            yield marker, self._manifest(marker.uid, entry)

    def _manifest(self, uid: str, entry: Entry) -> Manifest | None:
        """Return the manifest at ``entry``, which is read once: it never changes."""
        manifest = self._cache.find(uid, entry)
        if manifest is None:
            manifest = self._read(entry.key, Manifest)
            if manifest is None:
                return None
            self._cache.keep(uid, entry, manifest)
        if isinstance(manifest, str):
            self._refuse(manifest)
            return None
        return manifest

    def _read(self, key: str, model: type[RecordModel]) -> RecordModel | str | None:
        """Return a record, None if there is none, or a sentence why it is refused."""
        try:
            return self._store.get_json(key, model)
        except KeyNotFound:
            return None
        except StoreError as error:
            own_fault = not error.temporary and not isinstance(error, Unauthorized)
            if isinstance(error, StorageForbidden) or not own_fault:
                raise
            problem = str(error)
        except Exception as error:
            log.exception("an unexpected error while %s was read", key)
            problem = f"{key} cannot be read ({type(error).__name__})"
        metrics.RECORDS_REFUSED.labels(model.__name__).inc()
        log.warning("a record is ignored: %s", problem)
        return problem

    def _refuse(self, problem: str) -> None:
        self.refused = self.refused or f"{problem}; it is ignored."[:_LONGEST_PROBLEM]
