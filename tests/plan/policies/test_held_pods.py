"""Pods whose trainer has ended, and that containers of other programs keep alive."""

import pytest

from flashrun.api.reasons import Phase
from tests.plan import worlds
from tests.plan.worlds import Object, World, make_pod, running


def held_pod(exit_code: int) -> Object:
    """A pod whose trainer has ended, while a sidecar runs."""
    pod = make_pod(exit_code=exit_code)
    sidecar = {"name": "istio-proxy", "state": {"running": {"startedAt": "2026-11-22T11:59:35Z"}}}
    pod["status"]["containerStatuses"].insert(0, sidecar)
    pod["status"]["phase"] = "Running"
    return pod


def deleted(world: World) -> list[tuple[str, str]]:
    return [(item.kind, item.name) for item in world.decide().delete]


@pytest.mark.parametrize("code", [0, 40, 75, 137], ids=str)
def test_a_pod_is_ended_when_its_trainer_has(code: int) -> None:
    world = running().seeing(pods=(held_pod(code),))

    assert deleted(world) == [("Pod", "pod-1")]
    [delete] = world.decide().delete
    assert delete.grace_seconds == 30  # the trainer's own grace period is for saving


def test_a_pod_that_is_to_end_much_later_ends_soon_when_its_trainer_has() -> None:
    going = held_pod(40)
    going["metadata"]["deletionTimestamp"] = "2026-11-22T12:06:00Z"  # when its grace period ends

    assert deleted(running().seeing(pods=(going,))) == [("Pod", "pod-1")]


def test_a_pod_is_ended_once_and_a_trainer_that_runs_is_left_alone() -> None:
    going = held_pod(75)
    going["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"

    assert deleted(running().seeing(pods=(going,))) == []
    assert deleted(running()) == []


def test_a_run_succeeds_while_a_sidecar_still_runs_and_then_loses_its_job() -> None:
    world = running(result=worlds.result(), adapter=worlds.ADAPTER)
    held = world.seeing(pods=(held_pod(0),))
    decision = held.decide()
    ended = held.act(decision).seeing(pods=(held_pod(0),))
    [job] = ended.observed.jobs

    assert decision.status.phase is Phase.SUCCEEDED
    assert deleted(ended) == [("Job", job["metadata"]["name"])]


def test_status_says_what_keeps_the_pod() -> None:
    ready = running().seeing(pods=(held_pod(75),)).decide().status.condition("Ready")

    assert ready is not None
    assert "Containers that other programs added to its pod have not ended yet." in ready.message
