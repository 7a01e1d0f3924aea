"""Stalled attempts: when silent pods are ended, and when silence is explained."""

from datetime import timedelta

from flashrun.plan.types import StorageView
from tests.plan import worlds
from tests.plan.worlds import LEADER, make_pod, member, running


def test_a_stalled_attempt_is_ended_with_all_its_pods() -> None:
    silent = worlds.on_two_nodes().later(minutes=31)

    assert [(d.name, d.force) for d in silent.decide().delete] == [
        ("pod-1", False),
        ("pod-2", False),
    ]


def test_a_leader_that_waits_for_a_pod_which_cannot_start_is_not_stalled() -> None:
    for late in (member(running=False), member(unschedulable="0/2 nodes are available.")):
        world = worlds.on_two_nodes(make_pod(index=0), late).stored(heartbeat=None, claims=())
        assert world.later(hours=2).decide().delete == ()


def test_an_attempt_can_stall_only_after_its_last_pod_has_started() -> None:
    late = member(age=-timedelta(minutes=35))
    world = worlds.on_two_nodes().seeing(pods=(LEADER, late)).stored(heartbeat=None)

    assert world.later(minutes=40).decide().delete == ()
    assert world.later(minutes=66).decide().delete != ()


def test_a_trainer_is_not_stalled_while_storage_cannot_be_read() -> None:
    world = running().later(minutes=45)
    away = world.seeing(storage=StorageView(problem="S3 is away."))
    still = away.act(away.decide()).later(minutes=45)
    back = still.stored(problem="", heartbeat=worlds.heartbeat(10))

    assert world.decide().delete != ()
    assert away.decide().delete == ()
    assert still.decide().delete == ()
    assert back.decide().delete == ()
    assert back.later(minutes=31).settled().later(minutes=31).decide().delete != ()
