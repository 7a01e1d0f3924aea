"""Runs that exist and have not ended, as storage remembers them: one empty object for each.

A run that was deleted while no operator watched leaves nothing in the cluster. Its key, which is
written at the first sight of the run and before its first Job, then shows that it existed. No
tenant can write there, and a key is of one installation: another cluster on the same bucket has
other runs.
"""

import threading
from collections.abc import Callable
from typing import Final

from flashrun.api import names
from flashrun.api.records import RunIdentity
from flashrun.store import Store

KEYS_LIMIT: Final = 100_000
"""Most keys that are read at a time; deletions of runs beyond them are noticed later."""


class KnownRuns:
    """Notes and forgets runs; several threads may call it, and all methods raise ``StoreError``."""

    def __init__(self, store: Store, installation: Callable[[], str]) -> None:
        """``installation`` returns what tells this cluster from others that share the bucket."""
        self._store, self._installation = store, installation
        self._lock = threading.Lock()
        self._noted: set[str] = set()

    def note(self, run: RunIdentity) -> None:
        """Remember ``run``; it is written once."""
        key = self._key(run)
        with self._lock:
            if key in self._noted:
                return
        self._store.put_bytes(key, b"")
        with self._lock:
            self._noted.add(key)

    def has_noted(self, run: RunIdentity) -> bool:
        """Return whether this process knows that ``run`` is remembered."""
        with self._lock:
            return self._key(run) in self._noted

    def forget(self, run: RunIdentity) -> None:
        """Forget ``run``: the record of its end is in storage."""
        key = self._key(run)
        self._store.delete([key])
        with self._lock:
            self._noted.discard(key)

    def read(self) -> tuple[RunIdentity, ...]:
        """Return all runs that are remembered, also by an earlier process."""
        prefix = f"{names.KNOWN_RUNS_PREFIX}{self._installation()}/"
        runs: list[RunIdentity] = []
        for count, entry in enumerate(self._store.list(prefix), 1):
            parts = names.parse_known_run_key(entry.key)
            if parts is not None:
                runs.append(RunIdentity(namespace=parts.namespace, name=parts.run, uid=parts.uid))
            if count == KEYS_LIMIT:
                break
        with self._lock:
            self._noted |= {self._key(run) for run in runs}
        return tuple(runs)

    def _key(self, run: RunIdentity) -> str:
        return names.known_run_key(self._installation(), run.namespace, run.name, run.uid)
