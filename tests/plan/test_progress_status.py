"""Progress in the status: what a pod does before the first step, then steps and metrics."""

from datetime import timedelta

import pytest

from tests.plan import worlds
from tests.plan.worlds import World, make_pod, make_run

PREPARING = [
    ("a container of the first pod is at work", (make_pod(container="model"),), None,
     "Downloading", 0),
    ("it says how far it is", (make_pod(container="model"),),
     worlds.heartbeat(0, attempt=0, activity="Downloading (3.1 GiB)", progress=None),
     "Downloading (3.1 GiB)", 0),
    ("the trainer loads", (make_pod(),), worlds.heartbeat(0, activity="Loading", progress=None),
     "Loading", 0),
    ("a second pod downloads, and the heartbeat is still that of the first",
     (make_pod("pod-1", exit_code=75, age=timedelta(minutes=2)),
      make_pod("pod-2", container="model")),
     worlds.heartbeat(10), "Downloading", 10),
    ("a heartbeat is too long for a status", (make_pod(),),
     worlds.heartbeat(0, activity="A" * 100, progress=None), "A" * 64, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pods", "heartbeat", "activity", "step"),
    [row[1:] for row in PREPARING],
    ids=[row[0] for row in PREPARING],
)
def test_progress_says_what_is_done_before_there_are_steps(pods, heartbeat, activity, step) -> None:
    world = World(make_run()).settled().seeing(pods=pods).stored(heartbeat=heartbeat)
    progress = world.decide().status.progress

    assert progress is not None
    assert (progress.activity, progress.step) == (activity, step)
    again = world.settled().stored(heartbeat=worlds.heartbeat(0, activity="Loading", progress=None))
    moved = again.seeing(pods=(make_pod(),)).decide().status.progress
    assert moved is not None
    assert moved.activity == "Loading"
