"""Changes of the status: when they are written, and which Events report them."""

from typing import Any

import pytest

from flashrun.plan.status_changes import limit_writes
from flashrun.plan.types import Decision
from tests.plan import worlds
from tests.plan.worlds import checkpoint, running


def test_progress_alone_is_not_written_more_often_than_every_five_seconds() -> None:
    world = running()
    soon = world.later(seconds=2).stored(heartbeat=worlds.heartbeat(12)).decide()
    later = world.later(seconds=6).stored(heartbeat=worlds.heartbeat(12)).decide()

    assert soon.status == world.run.status
    assert soon.requeue_seconds == 3
    assert later.status.progress is not None
    assert later.status.progress.step == 12


@pytest.mark.parametrize(
    ("change", "written"),
    [
        ({}, False),
        ({"gpu_seconds": 5}, False),
        ({"storage": "s3://bucket/other"}, True),
        ({"checkpoint_count": 7}, True),
        ({"conditions": ()}, True),
    ],
)
def test_a_status_is_written_when_more_than_gpu_time_has_changed(
    change: dict[str, Any], written: bool
) -> None:
    world = running()
    before = world.run.status
    decision = Decision(status=before.replace(**change))
    after = limit_writes(before, decision, worlds.NOW)
    assert (after.status != before) == written


def test_each_event_is_written_once() -> None:
    world = running()
    decision = world.stored(checkpoints=(checkpoint(10),)).decide()
    after = world.stored(checkpoints=(checkpoint(10),)).act(decision)

    assert [event.reason for event in decision.events] == ["CheckpointUploaded"]
    assert after.decide().events == ()
