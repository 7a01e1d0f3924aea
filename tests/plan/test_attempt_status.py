"""Attempts in the status: where each resumed and ended, and the GPU time they took."""

from datetime import timedelta

import pytest

from tests.plan import worlds
from tests.plan.worlds import World, checkpoint, make_pod, make_run, member, running


def test_an_attempt_has_the_steps_where_it_resumed_and_ended() -> None:
    first = make_pod("pod-0", exit_code=40, termination=worlds.termination(), number=0)
    world = running(
        checkpoints=(checkpoint(5),), claims=(worlds.claim("pod-0", 1), worlds.claim("pod-1", 2))
    ).seeing(pods=(first, make_pod("pod-1", age=timedelta(seconds=5))))

    [ended, active] = world.decide().status.attempts
    assert (ended.number, ended.from_step, ended.to_step, ended.exit_code) == (1, 0, 7, 40)
    assert (active.number, active.from_step, active.to_step) == (2, 5, None)


def test_gpu_time_counts_every_gpu_of_every_node() -> None:
    ended = (make_pod(index=0, exit_code=40, age=timedelta(minutes=2)), member(exit_code=41))
    world = worlds.on_two_nodes(*ended)

    assert world.run.status.attempts[0].gpus == 4
    assert world.run.status.gpu_seconds == 4 * 120


def test_attempts_stay_in_the_order_of_their_pods() -> None:
    """A pod that never started has no time, and two may start within one second."""
    never_started = make_pod("pod-z", running=False, age=timedelta(seconds=40))
    second = make_pod("pod-y", exit_code=40)
    world = World(make_run()).settled().seeing(pods=(never_started,))
    for pods in ((never_started, second), (second,), (second, make_pod("pod-x"))):
        world = world.act(world.decide()).seeing(pods=pods)

    assert [attempt.pod for attempt in world.decide().status.attempts] == [
        "pod-z", "pod-y", "pod-x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("control", "reason"),
    [({}, "PodLost"), ({"cancel": True}, "Interrupted"), ({"suspend": True}, "Interrupted")],
    ids=["deleted by somebody", "cancelled", "suspended"],
)
def test_a_pod_that_is_gone_before_its_end_was_seen_is_lost_unless_it_was_stopped(
    control: dict[str, bool], reason: str
) -> None:
    world = running().switched(**control)
    world = world.act(world.decide()).seeing(pods=())

    [attempt] = world.decide().status.attempts
    assert (attempt.reason, attempt.exit_code) == (reason, None)


def test_an_attempt_whose_end_no_kubelet_has_dated_ends_when_that_is_seen() -> None:
    """Without an end it would hold its GPUs for ever, and use up every budget."""
    evicted = make_pod(age=timedelta(minutes=10))
    evicted["status"] |= {"phase": "Failed", "reason": "Evicted", "containerStatuses": []}
    evicted["status"]["startTime"] = evicted["metadata"]["creationTimestamp"]
    world = running().seeing(pods=(evicted,))
    world = world.act(world.decide())
    seen = world.later(hours=5).decide().status

    assert seen.attempts[0].end == worlds.NOW
    assert seen.gpu_seconds == 600
