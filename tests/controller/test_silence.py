"""Silence of pods: what counts as a sign of life, and by which clock."""

from datetime import timedelta

from flashrun.controller.silence import SilenceMeter
from tests.controller.clocks import Clock
from tests.plan.worlds import NOW, UID, heartbeat, make_pod

POD = "pod-1-uid"


def test_silence_begins_when_the_operator_first_sees_a_pod() -> None:
    clock = Clock()
    meter = SilenceMeter(clock)
    old = make_pod(age=timedelta(days=3))
    assert meter.measure(UID, (old,), None) == {POD: 0}
    clock.now = 60
    assert meter.measure(UID, (old,), None) == {POD: 60}


def test_a_change_that_is_received_is_a_sign_of_life_whatever_its_date() -> None:
    clock = Clock()
    meter = SilenceMeter(clock)
    dates = (NOW, NOW - timedelta(days=3650), NOW + timedelta(days=3650))
    for number, date in enumerate(dates):
        clock.now = 100 * number
        assert meter.measure(UID, (make_pod(),), heartbeat(1, updated=date)) == {POD: 0}
        clock.now += 50
        assert meter.measure(UID, (make_pod(),), heartbeat(1, updated=date)) == {POD: 50}


def test_the_heartbeat_of_another_pod_does_not_count() -> None:
    clock = Clock()
    meter = SilenceMeter(clock)
    meter.measure(UID, (make_pod(),), None)
    clock.now = 60
    assert meter.measure(UID, (make_pod(),), heartbeat(1, pod="pod-9")) == {POD: 60}


def test_the_start_and_the_deletion_of_a_pod_are_signs_of_life() -> None:
    clock = Clock()
    meter = SilenceMeter(clock)
    meter.measure(UID, (make_pod(running=False),), None)
    clock.now = 60
    assert meter.measure(UID, (make_pod(),), None) == {POD: 0}
    clock.now = 120
    assert meter.measure(UID, (make_pod(deleted=timedelta(0)),), None) == {POD: 0}


def test_a_heartbeat_that_changes_and_cannot_be_read_is_a_sign_of_life() -> None:
    clock = Clock()
    meter = SilenceMeter(clock)
    for number, etag in enumerate(("", "a", "b")):
        clock.now = 100 * number
        assert meter.measure(UID, (make_pod(),), None, etag) == {POD: 0}
        clock.now += 50
        assert meter.measure(UID, (make_pod(),), None, etag) == {POD: 50}


def test_a_run_that_was_forgotten_begins_anew() -> None:
    clock = Clock()
    meter = SilenceMeter(clock)
    meter.measure(UID, (make_pod(),), None)
    meter.measure("other", (make_pod(),), None)
    clock.now = 60
    meter.forget(UID)
    assert meter.measure(UID, (make_pod(),), None) == {POD: 0}
    meter.forget_all_except({UID})
    assert meter.measure("other", (make_pod(),), None) == {POD: 0}
