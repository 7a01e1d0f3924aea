"""A run as it changes until it has ended, for commands and the Python client; nothing prints."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from flashrun.api.reasons import TERMINAL, Phase, Reason
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.connection import ClusterSession, parse_run
from flashrun.cluster_errors import ClusterError

POLL_SECONDS: Final = 1.0
HURRIED_SECONDS: Final = 0.25
"""Between two readings while a change is expected."""
SUMMARY_SECONDS: Final = 5.0
"""How long the summary of a run waits for the end of its last attempt."""


async def poll_run(
    session: ClusterSession,
    first: FlashRun,
    notice: Callable[[str], object],
    expects_change: Callable[[], bool] = lambda: False,
) -> AsyncIterator[FlashRun]:
    """Yield a run about every second, the last time when it has ended or has no budget left.

    ``first`` is the run as it is now. ``notice`` gets a sentence when the API server does not
    answer; polling goes on. It is read more often while ``expects_change``.
    """
    run, lost = first, False
    while True:
        yield run
        if is_over(run):
            return
        await asyncio.sleep(HURRIED_SECONDS if expects_change() else POLL_SECONDS)
        try:
            run, lost = await session.get_run(first.name), False
        except ClusterError as error:
            if not error.temporary:
                raise
            if not lost:
                notice(f"{error}; trying again, the run is not affected")
            lost = True


def is_over(run: FlashRun) -> bool:
    """Return whether a run has ended, or is paused until a person raises its budget.

    Of a spec that has just changed, the status says nothing yet.
    """
    status = run.status
    if status.phase in TERMINAL:
        return True
    used_up = status.pending is not None and status.pending.reason is Reason.BUDGET_USED_UP
    return (
        used_up and status.phase is Phase.SUSPENDED and status.observed_generation == run.generation
    )


async def settled_manifest(
    session: ClusterSession, name: str, seconds: float = SUMMARY_SECONDS
) -> dict[str, Any]:
    """Return a run that has ended, with the end of its last attempt if it comes within ``seconds``.

    A run ends with its result in storage, and its pod a little later.
    """
    deadline = time.monotonic() + seconds
    while True:
        manifest = await session.get_manifest(name)
        attempts = parse_run(manifest).status.attempts
        if all(attempt.end for attempt in attempts) or time.monotonic() >= deadline:
            return manifest
        await asyncio.sleep(HURRIED_SECONDS)
