"""An active Job: what status says about its pods, and what is repaired."""

from datetime import timedelta

import pytest

from flashrun.api.reasons import Phase
from flashrun.api.records import ResolvedRun
from flashrun.api.resource import ConditionStatus
from tests.plan import worlds
from tests.plan.worlds import LEADER, MEMBER, World, make_pod, make_run, member, running

SITUATIONS = [
    ("no pod yet", (), Phase.STARTING, "PodPending", "has not created a pod yet."),
    ("no node fits", (make_pod(unschedulable="0/1 nodes: 1 Insufficient nvidia.com/gpu."),),
     Phase.STARTING, "Unschedulable", "Insufficient nvidia.com/gpu"),
    ("the image cannot be pulled", (make_pod(waiting=("ImagePullBackOff", "no such image")),),
     Phase.STARTING, "ImagePullBackOff", "no such image"),
    ("the model is fetched", (make_pod(container="model"),),
     Phase.STARTING, "Downloading", "The base model is being downloaded."),
    ("the environment is installed", (make_pod(container="packages"),),
     Phase.STARTING, "Installing", "The environment is being installed."),
    ("the trainer runs", (make_pod(),), Phase.RUNNING, "Training", "at work"),
    ("a second pod waits",
     (make_pod("pod-0", exit_code=75, age=timedelta(minutes=2)), make_pod(running=False)),
     Phase.RETRYING, "Starting", "The pod starts."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pods", "phase", "reason", "sentence"),
    [row[1:] for row in SITUATIONS],
    ids=[row[0] for row in SITUATIONS],
)
def test_status_says_what_the_pod_does(pods, phase, reason, sentence) -> None:
    status = World(make_run()).settled().seeing(pods=pods).decide().status

    ready = status.condition("Ready")
    assert ready is not None
    assert (status.phase, ready.reason) == (phase, reason)
    assert sentence in ready.message


TWO_POD_SITUATIONS = [
    ("both train", (LEADER, MEMBER), Phase.RUNNING, "Training", "at work"),
    ("one pod is not made yet", (LEADER,), Phase.STARTING, "PodPending", "1 of 2 pods"),
    ("no node fits the member", (LEADER, member(unschedulable="0/2 nodes are available.")),
     Phase.STARTING, "Unschedulable", "No node fits: 1 of 2 pods: 0/2 nodes are available."),
    ("no node fits either",
     (make_pod(index=0, unschedulable="Insufficient cpu."), member(unschedulable="Insufficient.")),
     Phase.STARTING, "Unschedulable", "2 of 2 pods: Insufficient cpu."),
    ("the member still fetches the model", (LEADER, member(container="model")),
     Phase.STARTING, "Downloading", "The base model is being downloaded."),
    ("the member's image cannot be pulled", (LEADER, member(waiting=("ErrImagePull", "denied"))),
     Phase.STARTING, "ErrImagePull", "denied"),
    ("the member failed and the leader has not noticed", (LEADER, member(exit_code=75)),
     Phase.RETRYING, "PodPending", "StorageUnavailable. Its other pods have not ended yet."),
    ("the member is done before the leader", (LEADER, member(exit_code=0)),
     Phase.RETRYING, "Training", "at work"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pods", "phase", "reason", "sentence"),
    [r[1:] for r in TWO_POD_SITUATIONS],
    ids=[row[0] for row in TWO_POD_SITUATIONS],
)
def test_status_says_what_the_pods_do_together(pods, phase, reason, sentence) -> None:
    status = worlds.on_two_nodes().seeing(pods=pods).decide().status

    ready = status.condition("Ready")
    assert ready is not None
    assert ready.reason == reason
    assert sentence in ready.message
    assert status.phase is (Phase.RUNNING if reason == "Training" else phase)


@pytest.mark.parametrize("kind", ["ConfigMap", "Service"])
def test_what_the_pods_of_two_nodes_need_is_created_again_when_someone_deletes_it(kind) -> None:
    world = worlds.on_two_nodes()
    gone = {"ConfigMap": {"config_map": None}, "Service": {"has_peers": False}}[kind]

    [made] = world.seeing(**gone).decide().apply

    assert made["kind"] == kind
    if kind == "ConfigMap":
        assert world.pinned is not None
        text = made["data"]["spec.json"]
        assert ResolvedRun.model_validate_json(text) == world.pinned


def test_a_trainers_warning_is_in_the_status_and_in_one_event() -> None:
    sentence = "The reward was the same for every completion of the last 20 steps."
    world = running().stored(heartbeat=worlds.heartbeat(11, warning=sentence))
    decision = world.decide()

    ready = decision.status.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.TRUE, "TrainingWarning")
    assert ready.message == sentence
    events = [(event.reason, event.message, event.warning) for event in decision.events]
    assert events == [("TrainingWarning", sentence, True)]
    assert world.act(decision).decide().events == ()
