"""Runs that exist and have not ended, as storage remembers them: one object for each.

A run that was deleted while no operator watched leaves nothing in the cluster. Its key, which is
written at the first sight of the run and before its first Job, then shows that it existed. No
tenant can write there, and a key is of one installation: another cluster on the same bucket has
other runs.

The object is empty, unless the run got its Job at first sight. Then it has the status that was
decided, with everything that was chosen for the run: the FlashRun says it a moment later, and an
operator that begins in between goes on with what was chosen.
"""

import threading
from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.records import RunIdentity
from flashrun.api.resource import FlashRun, ResolvedStatus
from flashrun.api.run_record import RunRecord
from flashrun.plan.endings import identity_of_run
from flashrun.store import Store
from flashrun.store_errors import Corrupt, KeyNotFound

KEYS_LIMIT: Final = 100_000
"""Most keys that are read at a time; deletions of runs beyond them are noticed later."""


class KnownRuns:
    """Notes and forgets runs; several threads may call it, and all methods raise ``StoreError``."""

    def __init__(self, store: Store, installation: Callable[[], str]) -> None:
        """``installation`` returns what tells this cluster from others that share the bucket."""
        self._store, self._installation = store, installation
        self._lock = threading.Lock()
        self._noted: dict[str, bool] = {}
        """Key of a run that is remembered → whether it may have a record."""
        self._complete = False
        """Whether ``_noted`` has every run that storage remembers."""

    def note(self, run: RunIdentity, record: RunRecord | None = None) -> None:
        """Remember ``run``, with what was decided about it; it is written once."""
        key = self._key(run)
        with self._lock:
            if key in self._noted:
                return
        if record is None:
            self._store.put_bytes(key, b"")
        else:
            self._store.put_json(key, record)
        with self._lock:
            self._noted[key] = record is not None

    def may_have_choices(self, run: FlashRun) -> bool:
        """Return whether ``choices`` has to ask storage; for most runs, this process knows."""
        key = self._key(identity_of_run(run))
        with self._lock:
            return self._noted.get(key, not self._complete)

    def choices(self, run: FlashRun) -> ResolvedStatus | None:
        """Return what was chosen for a run, if it was noted before its status could say so.

        Storage is asked only about runs of which it may know something.
        """
        if not self.may_have_choices(run):
            return None
        identity = identity_of_run(run)
        try:
            record = self._store.get_json(self._key(identity), RunRecord)
            return record.to_run().status.resolved if record.run == identity else None
        except (KeyNotFound, Corrupt, ValidationError):  # it is empty, or of another version
            return None

    def has_noted(self, run: RunIdentity) -> bool:
        """Return whether this process knows that ``run`` is remembered."""
        with self._lock:
            return self._key(run) in self._noted

    def forget(self, run: RunIdentity) -> None:
        """Forget ``run``: the record of its end is in storage."""
        key = self._key(run)
        self._store.delete([key])
        with self._lock:
            self._noted.pop(key, None)

    def read(self) -> tuple[RunIdentity, ...]:
        """Return all runs that are remembered, also by an earlier process."""
        prefix = f"{names.KNOWN_RUNS_PREFIX}{self._installation()}/"
        runs, noted, complete = list[RunIdentity](), dict[str, bool](), True
        for count, entry in enumerate(self._store.list(prefix), 1):
            parts = names.parse_known_run_key(entry.key)
            if parts is not None:
                runs.append(RunIdentity(namespace=parts.namespace, name=parts.run, uid=parts.uid))
                noted[entry.key] = entry.size > 0
            if count == KEYS_LIMIT:
                complete = False
                break
        with self._lock:
            self._noted |= noted
            self._complete = self._complete or complete
        return tuple(runs)

    def _key(self, run: RunIdentity) -> str:
        return names.known_run_key(self._installation(), run.namespace, run.name, run.uid)
