"""An active Job: what status says about its pods, and what is repaired."""

from dataclasses import replace
from datetime import timedelta

import pytest

from flashrun.api.reasons import Phase
from flashrun.api.records import ResolvedRun
from flashrun.api.resource import ConditionStatus
from flashrun.plan import pins
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


def forged_spec(world: World, **changes: object) -> World:
    config_map = world.observed.config_map
    assert config_map is not None
    return world.seeing(config_map={**config_map, **changes})


FORGED = {
    "other content": {"data": {"spec.json": "{}"}},
    "one key more": {"data": {"spec.json": "", "more": ""}},
    "no data": {"data": None},
    "not immutable": {"immutable": False},
}


@pytest.mark.parametrize("changes", FORGED.values(), ids=FORGED)
def test_a_config_map_that_somebody_changed_is_removed_and_then_made_again(changes) -> None:
    world = running()
    config_map = world.observed.config_map
    assert config_map is not None
    if changes.get("data") and "more" in changes["data"]:
        changes = {"data": {**config_map["data"], "more": ""}}
    forged = forged_spec(world, **changes)
    decision = forged.decide()

    name = config_map["metadata"]["name"]
    assert [(item.kind, item.name) for item in decision.delete] == [("ConfigMap", name)]
    assert decision.apply == ()
    assert forged.act(decision).decide().apply == (config_map,)


def test_a_config_map_of_another_owner_is_not_the_runs() -> None:
    world = running()
    config_map = world.observed.config_map
    assert config_map is not None
    metadata = {**config_map["metadata"], "ownerReferences": []}

    assert len(forged_spec(world, metadata=metadata).decide().delete) == 1


def test_a_job_goes_on_with_the_spec_that_another_version_of_the_operator_wrote() -> None:
    world = running()
    config_map, resolved = world.observed.config_map, world.run.status.resolved
    assert config_map is not None
    assert resolved is not None
    text = config_map["data"]["spec.json"].replace("{", "{ ", 1)
    digest = pins.digest_of(text)
    status = world.run.status.replace(resolved=resolved.replace(spec_digest=digest))
    older = replace(world, run=world.run.model_copy(update={"status": status}))

    kept = forged_spec(older, data={"spec.json": text}).decide()
    assert (kept.apply, kept.delete) == ((), ())
    lost = older.seeing(config_map=None).decide()  # nobody can write it again
    assert [item.kind for item in lost.delete] == ["Job"]
    again = older.seeing(config_map=None).act(lost).seeing(pods=()).settled()
    assert len(again.observed.jobs) == 1
    assert again.run.status.resolved is not None
    assert again.run.status.resolved.spec_digest != digest


@pytest.mark.parametrize(
    "changes",
    [{"activeDeadlineSeconds": 10**9}, {"backoffLimit": 10**6}, {"parallelism": 8}],
)
def test_limits_of_the_job_that_somebody_changed_are_set_back(changes) -> None:
    world = running()
    [job] = world.observed.jobs
    changed = world.seeing(jobs=({**job, "spec": {**job["spec"], **changes}},))
    [patch] = changed.decide().patch

    assert patch.body == {"spec": {key: job["spec"].get(key, 1) for key in changes}}
    assert changed.act(changed.decide()).decide().patch == ()


def test_a_limit_that_somebody_removed_is_set_again() -> None:
    world = running()
    [job] = world.observed.jobs
    spec = {key: value for key, value in job["spec"].items() if key != "activeDeadlineSeconds"}
    [patch] = world.seeing(jobs=({**job, "spec": spec},)).decide().patch

    assert patch.body == {"spec": {"activeDeadlineSeconds": 86430}}


def test_another_job_of_the_run_is_deleted_and_this_one_goes_on() -> None:
    world = running()
    [job] = world.observed.jobs
    forged = {**job, "metadata": {**job["metadata"], "name": "forged", "uid": "forged-uid"}}
    decision = world.seeing(jobs=(forged, job)).decide()

    assert [item.name for item in decision.delete] == ["forged"]
    assert decision.apply == ()
    after = world.seeing(jobs=(forged, job)).act(decision).decide()
    assert after.status.phase is Phase.RUNNING


def test_an_image_has_ten_minutes_from_the_first_failed_pull_that_was_seen() -> None:
    pod = make_pod(running=False, waiting=("ErrImagePull", "denied"), age=timedelta(days=3))
    world = World(make_run()).settled().seeing(pods=(pod,))

    assert world.decide().status.phase is Phase.STARTING
    waiting = world.seeing(pull_failed_seconds={"pod-1-uid": 600.0})
    assert waiting.decide().status.phase is Phase.STARTING
    overdue = world.seeing(pull_failed_seconds={"pod-1-uid": 601.0}).decide().status
    assert overdue.failure is not None
    assert (overdue.phase, overdue.failure.reason) == (Phase.FAILED, "ImagePullFailed")
