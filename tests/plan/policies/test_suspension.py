"""Suspension: the Job pauses and continues."""

from flashrun.api.reasons import Phase
from tests.plan.worlds import (
    make_pod,
    running,
)


def test_suspend_pauses_the_job_and_resume_wakes_it() -> None:
    world = running().switched(suspend=True)
    pausing = world.decide()
    paused = world.act(pausing).seeing(pods=(make_pod(exit_code=40),)).settled()
    waking = paused.switched(suspend=False).decide()

    assert pausing.patch[0].body == {"spec": {"suspend": True}}
    assert paused.run.status.phase is Phase.SUSPENDED
    assert waking.patch[0].body == {"spec": {"suspend": False}}
