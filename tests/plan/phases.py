"""A run in each situation that the tools of GitOps judge, with the status that a pass writes."""

from collections.abc import Mapping
from typing import Any

from tests.plan.worlds import (
    ADAPTER,
    PLATFORM,
    World,
    finished,
    lookup,
    make_pod,
    make_run,
    result,
    running,
)


def runs_in_each_phase() -> dict[str, dict[str, Any]]:
    """Return a name of each situation → the status of a run in it."""
    trained = finished(result=result(), adapter=ADAPTER)
    return {name: _status(world) for name, world in _worlds(trained).items()}


def _worlds(trained: World) -> Mapping[str, World]:
    waiting = make_run({"environment": {"id": "examples/sums", "secrets": ["KEY"]}})
    queue = PLATFORM.model_copy(
        update={"trainer": PLATFORM.trainer.model_copy(update={"queue": "team"})}
    )
    queued = World(make_run(), platform=queue).settled()
    [job] = queued.observed.jobs
    suspended_job = {**job, "spec": {**job["spec"], "suspend": True}}
    return {
        "waiting for a secret": World(waiting).seeing(secrets=lookup()),
        "waiting for its environment": World(make_run()).stored(environment=None),
        "in a queue of Kueue": queued.seeing(jobs=(suspended_job,)),
        "starting": World(make_run()).settled().seeing(pods=(make_pod(container="model"),)),
        "without a node": World(make_run()).settled().seeing(
            pods=(make_pod(unschedulable="0/3 nodes are available."),)
        ),
        "training": running(),
        "between two attempts": running().seeing(pods=(make_pod(exit_code=75),)),
        "suspended": running().switched(suspend=True).seeing(pods=(make_pod(exit_code=40),)),
        "being cancelled": running().switched(cancel=True),
        "cancelled": World(make_run(cancel=True)),
        "trained": trained,
        "failed": finished(70, result=result(70)),
    }  # fmt: skip


def _status(world: World) -> dict[str, Any]:
    patch = world.decide().status.to_patch()
    return {key: value for key, value in patch.items() if value is not None}
