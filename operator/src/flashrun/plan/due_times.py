"""When something is due for a run with active pods although nothing happens: one time per run."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from flashrun.plan import budgets
from flashrun.plan.policies.active_job import IMAGE_PATIENCE
from flashrun.plan.policies.lost_node import NODE_LOST
from flashrun.plan.run_context import RunContext

SHORTEST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 300.0
"""A Secret that somebody deletes is seen by then, because Secrets are not watched."""
SWEEP_LOOK: Final = timedelta(seconds=30)
"""Time until a run is compared again with the others of its sweep."""
OVERDUE_SECONDS: Final = 60.0
"""Time until something is tried again that was due already and did not succeed in this pass."""


def seconds_to_next_pass(context: RunContext) -> float:
    """Return in how many seconds something is due: from credentials to the end of a budget."""
    left = (item.total_seconds() for item in _times_left(context))
    waits = (max(SHORTEST_SECONDS, seconds) if seconds > 0 else OVERDUE_SECONDS for seconds in left)
    return min(LONGEST_SECONDS, *waits, LONGEST_SECONDS)


def _times_left(context: RunContext) -> Iterator[timedelta]:
    observed, platform = context.observed, context.platform
    sweep = context.run.spec.sweep
    if sweep is not None and sweep.stop_worse is not None:
        yield SWEEP_LOOK
    if (left := budgets.time_left(context.run, context.status, context.now)) is not None:
        yield left
    shared = observed.namespace_budget
    if shared is not None and (left := shared.time_left) is not None:
        yield min(left, timedelta(seconds=budgets.LOOK_SECONDS))
    half_life = timedelta(seconds=platform.storage.credentials_seconds) / 2
    for expires in (observed.access_expires, context.run.status.storage_access_expires):
        if expires is not None:
            yield expires - context.now - half_life
    for pod in context.pods:
        if pod.deleted is not None and pod.holds_node:
            yield NODE_LOST - context.silence(pod)
        elif pod.active and pod.started is not None:
            yield timedelta(seconds=platform.trainer.stall_seconds) - context.silence(pod)
        if pod.active and pod.image_trouble:
            failed = observed.pull_failed_seconds.get(pod.uid, 0.0)
            yield IMAGE_PATIENCE - timedelta(seconds=failed - SHORTEST_SECONDS)
