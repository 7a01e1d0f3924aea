"""How long an image cannot be pulled: from which moment on it counts, and by which clock."""

from datetime import timedelta

from flashrun.controller.pull_failures import PullFailures
from tests.controller.clocks import Clock
from tests.plan.worlds import UID, make_pod

FAILS = make_pod(running=False, waiting=("ErrImagePull", "denied"), age=timedelta(days=3))
BACKS_OFF = make_pod(running=False, waiting=("ImagePullBackOff", "denied"), age=timedelta(days=3))
WAITS = make_pod(running=False, unschedulable="0/2 nodes are available.", age=timedelta(days=3))
POD = "pod-1-uid"


def test_it_counts_from_the_first_failure_that_was_seen_whatever_the_age_of_the_pod() -> None:
    clock = Clock(1000)
    failures = PullFailures(clock)
    assert failures.measure(UID, (WAITS,)) == {}
    clock.now = 2000
    assert failures.measure(UID, (FAILS,)) == {POD: 0}
    clock.now = 2060
    assert failures.measure(UID, (BACKS_OFF,)) == {POD: 60}


def test_an_image_that_was_pulled_meanwhile_begins_anew() -> None:
    clock = Clock()
    failures = PullFailures(clock)
    failures.measure(UID, (FAILS,))
    clock.now = 60
    assert failures.measure(UID, (make_pod(),)) == {}
    assert failures.measure(UID, (FAILS,)) == {POD: 0}


def test_runs_that_have_ended_are_forgotten() -> None:
    clock = Clock()
    failures = PullFailures(clock)
    for uid in ("a", "b", "c"):
        failures.measure(uid, (FAILS,))
    clock.now = 60
    failures.forget("a")
    failures.forget_all_except({"a", "b"})
    assert failures.measure("a", (FAILS,)) == {POD: 0}
    assert failures.measure("b", (FAILS,)) == {POD: 60}
    assert failures.measure("c", (FAILS,)) == {POD: 0}
