"""Which pod trains: at most one pod at a time commits to a run, and a finished run stays finished.

A pod claims the first free attempt number by creating that attempt's claim file. From then on it
may commit only while there is no higher claim and its own claim is not superseded. A pod that was
cut off from storage and comes back therefore finds out before it writes.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count

from flashrun.api import names
from flashrun.api.exits import Exit, exit_of
from flashrun.api.reasons import Reason, Retry
from flashrun.api.records import Claim, Manifest, ResolvedRun, Result
from flashrun.store import Store
from flashrun.store_errors import KeyExists, KeyNotFound
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClaimedAttempt:
    """An attempt that this pod has claimed."""

    run: ResolvedRun
    store: Store
    prefix: str
    """The run's storage prefix."""
    claim: Claim

    @property
    def number(self) -> int:
        """Number of the attempt, from 1."""
        return self.claim.attempt

    def confirm(self) -> None:
        """Raise ``TrainerError`` when this attempt is no longer the run's current one."""
        own = self.store.get_json(names.claim_key(self.prefix, self.number), Claim)
        taken = own.superseded or own.pod_uid != self.claim.pod_uid
        if taken or self.store.exists(names.claim_key(self.prefix, self.number + 1)):
            raise TrainerError(
                Exit.INTERRUPTED_UNSAVED,
                Reason.SUPERSEDED,
                f"attempt {self.number} is superseded: another pod owns the run now",
                "nothing to do: the other pod continues from the last checkpoint",
            )


def storage_prefix(run: ResolvedRun) -> str:
    """Return the run's storage prefix."""
    return names.run_prefix(run.run.namespace, run.run.name, run.run.uid)


def earlier_result(store: Store, run: ResolvedRun) -> Result | None:
    """Return the run's terminal result if an earlier pod has left one, else None.

    When there is a final adapter without a result, a pod died between writing the two: the run has
    succeeded, and the missing result is written now.
    """
    prefix = storage_prefix(run)
    try:
        return store.get_json(names.result_key(prefix), Result)
    except KeyNotFound:
        pass
    try:
        adapter = store.get_json(names.adapter_prefix(prefix) + names.MANIFEST, Manifest)
    except KeyNotFound:
        return None
    return write_result(
        store,
        Result(
            run=run.run,
            attempt=adapter.attempt or 1,
            exit_code=Exit.DONE,
            finished=datetime.now(UTC),
        ),
    )


def write_result(store: Store, result: Result) -> Result:
    """Write the terminal result, and return the one that counts: the first that was written."""
    key = names.result_key(names.run_prefix(result.run.namespace, result.run.name, result.run.uid))
    try:
        store.create_json(key, result)
    except KeyExists:
        return store.get_json(key, Result)
    return result


def is_final(code: int) -> bool:
    """Return whether an exit code ends the run, so that no further attempt follows."""
    known = exit_of(code)
    return known is not None and known.retry is Retry.NEVER


def load_attempt(store: Store, run: ResolvedRun, number: int) -> ClaimedAttempt:
    """Return an attempt that the launcher of this pod, or of the leading pod, has claimed."""
    prefix = storage_prefix(run)
    claim = store.get_json(names.claim_key(prefix, number), Claim)
    return ClaimedAttempt(run, store, prefix, claim)


def claim_attempt(store: Store, run: ResolvedRun, pod: PodMounts) -> ClaimedAttempt:
    """Claim the first free attempt."""
    prefix = storage_prefix(run)
    for number in count(1):
        claim = Claim(
            attempt=number,
            pod=pod.name,
            pod_uid=pod.uid,
            node=pod.node,
            started=datetime.now(UTC),
        )
        try:
            store.create_json(names.claim_key(prefix, number), claim)
        except KeyExists:
            continue
        log.info("this pod has claimed attempt %d of run %s", number, run.run.name)
        return ClaimedAttempt(run, store, prefix, claim)
    raise AssertionError  # count() does not end
