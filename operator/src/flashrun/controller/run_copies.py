"""The copies of runs in storage, which people read when the FlashRun is gone."""

import logging

from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.reasons import TERMINAL
from flashrun.api.records import Ending
from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.api.run_record import RunRecord
from flashrun.api.sentences import join_sentences
from flashrun.plan import run_status
from flashrun.plan.endings import failure_of
from flashrun.store import Store
from flashrun.store_errors import Corrupt, KeyNotFound

log = logging.getLogger(__name__)


class RunCopies:
    """Writes copies of runs; any thread may call it, and all methods raise ``StoreError``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, run: FlashRun, status: FlashRunStatus) -> None:
        """Write ``run`` with ``status``."""
        key = names.run_record_key(run.storage_prefix)
        self._store.put_json(key, RunRecord.of(run, status))

    def close(self, ending: Ending) -> None:
        """Write to the copy of a run that was deleted how it ended, unless it says so already.

        A copy that cannot be read, or is of another run, is left as it is: code in the run's pods
        may have written it. The operator can write where that code cannot.
        """
        run = ending.run
        key = names.run_record_key(names.run_prefix(run.namespace, run.name, run.uid))
        try:
            record = self._store.get_json(key, RunRecord)
            if record.run != run:
                raise Corrupt(f"{key} is of run {record.run.name} in {record.run.namespace}")
            copy = record.to_run()
        except KeyNotFound:
            return
        except (Corrupt, ValidationError) as error:
            log.warning("the copy of a run cannot be read: %s", error)
            return
        if copy.status.phase in TERMINAL:
            return
        status = run_status.with_phase(
            copy.status.replace(
                pending=None,
                failure=failure_of(ending),
                gpu_seconds=max(copy.status.gpu_seconds, ending.gpu_seconds),
            ),
            copy,
            ending.ended,
            phase=ending.phase,
            reason=ending.reason,
            message=join_sentences(ending.message, ending.hint),
        )
        self.write(copy, status)
