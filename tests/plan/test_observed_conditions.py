"""Conditions that follow from what a pass has observed."""

from flashrun.api.resource import ConditionStatus
from tests.plan import worlds
from tests.plan.worlds import LEADER, member


def test_scheduled_is_about_all_pods() -> None:
    def scheduled(*pods):
        condition = worlds.on_two_nodes(*pods).run.status.condition("Scheduled")
        assert condition is not None
        return condition.status, condition.message

    assert scheduled() == (ConditionStatus.TRUE, "On nodes node-1, node-2.")
    assert scheduled(LEADER)[0] is ConditionStatus.UNKNOWN
    held = member(unschedulable="0/2 nodes are available.")
    assert scheduled(LEADER, held) == (
        ConditionStatus.FALSE,
        "1 of 2 pods: 0/2 nodes are available.",
    )
