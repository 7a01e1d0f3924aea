"""Lost nodes: which pods are fenced and removed by force."""

from datetime import timedelta

import pytest

from flashrun.api.reasons import Phase
from flashrun.plan.pods import read_pod
from flashrun.plan.policies.lost_node import lost_pod_status
from tests.plan import worlds
from tests.plan.worlds import MEMBER, make_pod, member, running


def test_a_silent_pod_is_deleted_and_a_lost_one_is_superseded_first() -> None:
    silent = running().later(minutes=31)
    lost = silent.seeing(pods=(make_pod(deleted=timedelta(0)),))

    assert [(d.name, d.force) for d in silent.decide().delete] == [("pod-1", False)]
    decision = lost.decide()
    assert decision.supersede == 1
    assert [(d.name, d.force) for d in decision.delete] == [("pod-1", True)]


def test_a_lost_member_is_removed_and_the_leaders_claim_stays() -> None:
    gone = member(deleted=timedelta(0))
    world = worlds.on_two_nodes(make_pod(index=0), gone).later(minutes=11)
    alive = world.stored(heartbeat=worlds.heartbeat(12, updated=world.now))

    decision = alive.decide()
    assert [(d.name, d.force) for d in decision.delete] == [("pod-2", True)]
    assert decision.supersede is None


def test_a_lost_leader_is_superseded_and_a_member_that_trains_stays() -> None:
    gone = make_pod(index=0, deleted=timedelta(0))
    decision = worlds.on_two_nodes(gone, MEMBER).later(minutes=11).decide()

    assert [(d.name, d.force) for d in decision.delete] == [("pod-1", True)]
    assert decision.supersede == 1


@pytest.mark.parametrize("switch", ["suspend", "cancel"])
def test_a_lost_pod_delays_neither_suspending_nor_cancelling(switch) -> None:
    world = worlds.on_two_nodes().switched(**{switch: True}).settled()
    stopping = (make_pod(index=0, exit_code=40), member(deleted=timedelta(0)))
    waiting = world.seeing(pods=stopping).settled()
    stuck = waiting.later(minutes=11)

    assert waiting.run.status.phase in (Phase.RUNNING, Phase.CANCELLING)
    assert [(d.name, d.force) for d in stuck.decide().delete] == [("pod-2", True)]
    assert stuck.settled().run.status.phase in (Phase.SUSPENDED, Phase.CANCELLED)


def test_a_lost_pod_is_reported_as_failed_by_a_disruption() -> None:
    scheduled = {"type": "PodScheduled", "status": "True"}
    stale = {"type": "DisruptionTarget", "status": "False"}
    pod = make_pod()
    pod["status"]["conditions"] = [scheduled, stale]

    status = lost_pod_status(pod, worlds.NOW)

    assert status["phase"] == "Failed"
    assert status["conditions"][0] == scheduled
    assert len(status["conditions"]) == 2
    assert read_pod({**pod, "status": status}).disrupted == "NodeLost"
    assert status["conditions"][1]["lastTransitionTime"] == "2026-11-22T12:00:00Z"
