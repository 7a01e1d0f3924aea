"""Conditions that follow from what a pass has observed."""

from flashrun.api.resource import ConditionStatus
from tests.plan import worlds
from tests.plan.worlds import LEADER, World, heartbeat, make_run, member


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


def metrics_sent(world: World) -> tuple[ConditionStatus, str, str] | None:
    condition = world.run.status.condition("MetricsSent")
    return condition and (condition.status, condition.reason, condition.message)


def test_weights_and_biases_that_is_off_says_why_until_it_is_on_again() -> None:
    world = worlds.running()
    assert metrics_sent(world) is None
    off = (ConditionStatus.FALSE, "WandbOff", "CommError: no such team")

    refused = world.stored(heartbeat=heartbeat(11, wandb="CommError: no such team")).settled()
    assert metrics_sent(refused) == off
    assert metrics_sent(refused.stored(heartbeat=None).settled()) == off
    ended = refused.stored(result=worlds.result().replace(wandb="CommError: no such team"))
    assert metrics_sent(ended.settled()) == off
    again = refused.stored(heartbeat=heartbeat(12)).settled()
    assert metrics_sent(again) == (ConditionStatus.TRUE, "WandbOn", "")


def test_names_for_weights_and_biases_without_a_key_are_worth_a_condition() -> None:
    run = make_run({"wandb": {"project": "sums"}})
    missing = World(run).settled()
    assert metrics_sent(missing) == (
        ConditionStatus.FALSE,
        "WandbKeyMissing",
        "WANDB_API_KEY has no value in spec.secretRefs (empty): add a Secret that has it.",
    )
    has_key = World(run).seeing(secrets=worlds.lookup(WANDB_API_KEY="mine")).settled()
    assert metrics_sent(has_key) is None
    assert metrics_sent(World(make_run()).settled()) is None
