"""What runs have used: from the operator's copies in storage, and of runs that go on from the API.

A copy is written when a run begins, after each of its attempts, and when it ends or is deleted; it
stays when the FlashRun is deleted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.resource import FlashRun
from flashrun.api.run_record import RunRecord
from flashrun.cli.cluster.connection import ClusterSession, listed_run
from flashrun.daemon_pool import in_daemon_threads
from flashrun.plan.gpu_time import seconds_by_pool
from flashrun.store_errors import Corrupt, KeyNotFound

if TYPE_CHECKING:
    from flashrun.store import Store

PARALLEL: Final = 16
"""Copies that are read at a time."""


@dataclass(frozen=True)
class RunUsage:
    """The GPU time of one run, by pool."""

    namespace: str
    name: str
    user: str
    """Empty where nothing says who submitted the run."""
    model: str
    seconds: dict[str, float]


async def read_usage(
    session: ClusterSession, now: datetime, since: datetime | None
) -> list[RunUsage]:
    """Return what each run of the namespace has used after ``since``, if it has used anything.

    Raises:
        Failure: storage cannot be used.
    """
    runs = {
        run.uid: run
        for run in await session.with_store(lambda store: _copies(store, session.namespace))
    }
    # Of a run that goes on, the copy is older; of one that has ended, both are the same.
    runs |= {run.uid: run for run in map(listed_run, await session.list_manifests()) if run.uid}
    used = (_usage(run, now, since) for run in runs.values())
    return [usage for usage in used if usage.seconds]


def _usage(run: FlashRun, now: datetime, since: datetime | None) -> RunUsage:
    ended = run.status.completion_time is not None or run.created is None
    return RunUsage(
        namespace=run.namespace,
        name=run.name,
        user=run.annotations.get(names.USER_ANNOTATION, ""),
        model=run.spec.model,
        # A record may be of a machine whose clock is ahead, or of whoever may write to storage.
        seconds=seconds_by_pool(run.status, None if ended else now, since, latest=now),
    )


def _copies(store: "Store", namespace: str) -> list[FlashRun]:
    """Return the runs that storage has copies of; their attempts that go on count no further."""
    prefix = names.namespace_prefix(namespace)
    folders = [
        folder.key
        for name in store.list(prefix, recursive=False)
        for folder in store.list(name.key, recursive=False)
    ]
    found = in_daemon_threads(lambda key: [*_copy(store, key)], folders, PARALLEL)
    return [run for runs in found for run in runs]


def _copy(store: "Store", prefix: str) -> Iterator[FlashRun]:
    try:
        run = store.get_json(names.run_record_key(prefix), RunRecord).to_run()
    except (KeyNotFound, Corrupt, ValidationError):
        return  # a run of an earlier version, or one that never got a Job
    if run.storage_prefix == prefix:
        yield run
