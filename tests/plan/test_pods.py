"""Facts of pods, and which pods of several nodes made one attempt."""

from datetime import timedelta

import pytest

from tests.plan import worlds
from tests.plan.worlds import make_pod, member

SECOND = timedelta(seconds=1)


CULPRITS = [
    ("the member failed and drew the leader along",
     {"exit_code": 67}, {"exit_code": 75, "ended": SECOND}, "StorageUnavailable", "pod-2"),
    ("the leader was gone before the member's end was told",
     {"exit_code": 67, "ended": SECOND}, {"exit_code": 72}, "DataInvalid", "pod-2"),
    ("the leader failed and the member was stopped",
     {"exit_code": 71, "ended": SECOND}, {"exit_code": 41}, "Diverged", ""),
    ("both failed, the leader first",
     {"exit_code": 70, "ended": SECOND}, {"exit_code": 70}, "EnvironmentFailed", ""),
    ("the network broke", {"exit_code": 67, "ended": SECOND}, {"exit_code": 67},
     "NcclFailure", ""),
    ("the member was preempted",
     {"exit_code": 67}, {"exit_code": 40, "disrupted": "PreemptionByScheduler"},
     "PreemptionByScheduler", "pod-2"),
    ("the member ran out of memory", {"exit_code": 67},
     {"exit_code": 137, "reason": "OOMKilled", "ended": SECOND}, "HostOutOfMemory", "pod-2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("leads", "follows", "reason", "named"),
    [row[1:] for row in CULPRITS],
    ids=[row[0] for row in CULPRITS],
)
def test_an_attempt_is_explained_by_the_pod_that_failed_of_itself(
    leads, follows, reason, named
) -> None:
    pods = (make_pod(index=0, **leads), member(**follows))
    [attempt] = worlds.on_two_nodes().seeing(pods=pods).decide().status.attempts

    assert (attempt.pod, attempt.node, attempt.reason) == ("pod-1", "node-1", reason)
    assert attempt.message == (f"Pod {named} failed first." if named else "")


def test_a_replaced_pod_belongs_to_the_attempt_it_works_in() -> None:
    minute = timedelta(minutes=1)
    pods = (
        make_pod(index=0, exit_code=67, age=10 * minute, ended=5 * minute),
        member(exit_code=75, age=10 * minute, ended=6 * minute),
        make_pod("pod-3", index=1, node="node-3", age=5.5 * minute, exit_code=72, ended=minute),
        make_pod("pod-4", index=0, age=4 * minute, exit_code=67),
    )
    first, second = worlds.on_two_nodes().seeing(pods=pods).decide().status.attempts

    assert (first.pod, first.reason, first.message) == (
        "pod-1", "StorageUnavailable", "Pod pod-2 failed first.",
    )  # fmt: skip
    assert (second.pod, second.reason, second.message) == (
        "pod-4", "DataInvalid", "Pod pod-3 failed first.",
    )  # fmt: skip
