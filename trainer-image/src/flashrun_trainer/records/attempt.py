"""Who trains: at most one pod at a time commits to a run, and a finished run stays finished.

A pod claims the first attempt number that nobody has, by creating its claim. From then on it may
commit only while no higher claim exists and its own is not superseded; a pod that was cut off and
comes back finds out before it writes.
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
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import TrainerError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """A claimed attempt."""

    run: ResolvedRun
    store: Store
    prefix: str
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
                "that pod goes on from the last checkpoint",
            )


def prefix_of(run: ResolvedRun) -> str:
    """Return the run's storage prefix."""
    return names.run_prefix(run.run.namespace, run.run.name, run.run.uid)


def earlier_result(store: Store, run: ResolvedRun) -> Result | None:
    """Return the run's terminal result, when an earlier pod left one.

    A final adapter without a result is a pod that died between the two: the run has succeeded, and
    the missing record is written now.
    """
    prefix = prefix_of(run)
    try:
        return store.get_json(names.result_key(prefix), Result)
    except KeyNotFound:
        pass
    try:
        adapter = store.get_json(names.adapter_prefix(prefix) + names.MANIFEST, Manifest)
    except KeyNotFound:
        return None
    return settle(
        store,
        Result(
            run=run.run,
            attempt=adapter.attempt or 1,
            exit_code=Exit.DONE,
            finished=datetime.now(UTC),
        ),
    )


def settle(store: Store, result: Result) -> Result:
    """Write the terminal result, and return the one that stands: the first."""
    key = names.result_key(names.run_prefix(result.run.namespace, result.run.name, result.run.uid))
    try:
        store.create_json(key, result)
    except KeyExists:
        return store.get_json(key, Result)
    return result


def is_final(code: int) -> bool:
    """Say whether an exit code ends the run for good."""
    known = exit_of(code)
    return known is not None and known.retry is Retry.NEVER


def claimed(store: Store, run: ResolvedRun, number: int) -> Attempt:
    """Return an attempt that this process's launcher, or that of the leading pod, has claimed."""
    prefix = prefix_of(run)
    return Attempt(run, store, prefix, store.get_json(names.claim_key(prefix, number), Claim))


def claim(store: Store, run: ResolvedRun, pod: Pod) -> Attempt:
    """Claim the first free attempt."""
    prefix = prefix_of(run)
    for number in count(1):
        mine = Claim(
            attempt=number,
            pod=pod.name,
            pod_uid=pod.uid,
            node=pod.node,
            started=datetime.now(UTC),
        )
        try:
            store.create_json(names.claim_key(prefix, number), mine)
        except KeyExists:
            continue
        log.info("attempt %d of run %s is ours", number, run.run.name)
        return Attempt(run, store, prefix, mine)
    raise AssertionError  # count never ends
