"""What the operator decides, as a table of worlds and sentences, and what holds for all of them."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashrun.api.exits import Exit
from flashrun.api.records import Batching, Heartbeat, ResolvedRun, Scale
from flashrun.api.resource import BatchingStatus, ConditionStatus, Phase
from flashrun.plan import objects
from flashrun.plan.types import SecretLookup, StorageView
from tests.plan import worlds
from tests.plan.worlds import ADAPTER, PUSHED, World, checkpoint, make_pod, make_run, running


def test_a_first_pass_makes_everything_a_pod_needs_before_the_job() -> None:
    decision = World(make_run()).decide()

    assert decision.status.phase is Phase.STARTING
    assert decision.secrets is not None
    assert decision.access is not None
    assert [manifest["kind"] for manifest in decision.apply] == ["ConfigMap", "Job"]


def test_every_object_belongs_to_the_run() -> None:
    decision = World(make_run()).decide()
    assert decision.secrets is not None
    assert decision.access is not None
    made = [manifest["metadata"] for manifest in decision.apply]

    for metadata in (*made, decision.secrets.metadata, decision.access.metadata):
        [owner] = metadata["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (worlds.UID, True)


WAITING = [
    ("the environment was not pushed", make_run(), {"storage": StorageView()},
     "EnvironmentNotFound", "flash env push --name examples/sums", "Accepted"),
    ("storage does not answer", make_run(), {"storage": StorageView(problem="S3 is away.")},
     "StorageUnavailable", "S3 is away.", "Accepted"),
    ("a listed secret has no value",
     make_run({"environment": {"id": "a/b", "secrets": ["ONE", "TWO"]}}),
     {"secrets": SecretLookup(sources={"ONE": "s"})},
     "SecretMissing", "No value for TWO in spec.secretRefs (empty).", "SecretsReady"),
    ("the Secret is not marked for runs",
     make_run({"environment": {"id": "a/b", "secrets": ["ONE"]}, "secret_refs": [{"name": "s"}]}),
     {"secrets": SecretLookup(unlabelled=("s",))},
     "SecretMissing", 'label it flashrun.dev/secrets: "true"', "SecretsReady"),
    ("the adapter to start from is not finished",
     make_run({"train": {"init_from_adapter": "flash-1-aa/step-20"}}), {},
     "AdapterNotFound", "Adapter flash-1-aa/step-20 has no finished upload", "Accepted"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("run", "seen", "reason", "sentence", "condition"),
    [row[1:] for row in WAITING],
    ids=[row[0] for row in WAITING],
)
def test_a_run_waits_and_says_why(run, seen, reason, sentence, condition) -> None:
    decision = World(run).seeing(**seen).decide()

    assert decision.status.phase is Phase.PENDING
    assert decision.apply == ()
    assert decision.status.pending is not None
    assert decision.status.pending.reason == reason
    assert sentence in decision.status.pending.message
    found = decision.status.condition(condition)
    assert found is not None
    assert (found.status, found.reason) == (ConditionStatus.FALSE, reason)
    assert decision.requeue_seconds is not None


def test_a_run_goes_on_when_the_secret_arrives() -> None:
    run = make_run({"environment": {"id": "examples/sums", "secrets": ["ONE"]}})
    waiting = World(run).settled()

    decision = waiting.seeing(secrets=worlds.lookup(ONE="team-keys")).decide()

    assert decision.secrets is not None
    assert decision.secrets.sources == {"ONE": "team-keys"}
    assert decision.status.phase is Phase.STARTING
    assert decision.status.pending is None


def test_the_wandb_key_goes_along_only_when_it_is_there() -> None:
    without = World(make_run()).decide()
    found = World(make_run()).seeing(secrets=worlds.lookup(WANDB_API_KEY="x-env")).decide()

    assert without.secrets is not None
    assert found.secrets is not None
    assert without.secrets.sources == {}
    assert found.secrets.sources == {"WANDB_API_KEY": "x-env"}


REFUSED = [
    ("an unknown model", {"model": "Qwen/Qwen3.5-5B"}, "did you mean 'Qwen/Qwen3.5-"),
    ("a rank above the cap", {"train": {"lora_rank": 65}}, "use at most 64"),
    ("a length above the context", {"train": {"max_length": 513}}, "use at most 512"),
    ("a completion without a prompt",
     {"algorithm": "grpo", "train": {"max_tokens": 128}}, "use at most 127"),
    ("a model for which no GPU is large enough",
     {"model": "flashrun/huge"}, "needs 800 GiB of GPU memory, and a run can get at most 80 GiB"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "sentence"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_spec_that_can_never_work_fails_at_once(config, sentence) -> None:
    decision = World(make_run(config)).decide()

    assert decision.status.phase is Phase.FAILED
    assert decision.apply == ()
    assert decision.status.failure is not None
    assert decision.status.failure.reason == "SpecInvalid"
    assert sentence in decision.status.failure.message
    accepted = decision.status.condition("Accepted")
    assert accepted is not None
    assert accepted.status is ConditionStatus.FALSE


ADAPTERS = [
    ("another model", {"base_model": "Qwen/Qwen3.5-2B"}, {}, "was trained on Qwen/Qwen3.5-2B"),
    ("another rank", {}, {"lora_rank": 8}, "comes from the adapter, which has 16"),
]


@pytest.mark.parametrize(
    ("found", "train", "sentence"), [row[1:] for row in ADAPTERS], ids=[row[0] for row in ADAPTERS]
)
def test_an_adapter_that_does_not_fit_is_refused(found, train, sentence) -> None:
    run = make_run({"train": {"init_from_adapter": "flash-1-aa/step-20", **train}})
    decision = World(run).stored(adapter_source=worlds.source_adapter(**found)).decide()

    assert decision.status.failure is not None
    assert sentence in decision.status.failure.message


def test_rank_and_alpha_of_a_warm_start_come_from_the_adapter() -> None:
    run = make_run({"train": {"init_from_adapter": "flash-1-aa/step-20"}})
    world = World(run).stored(adapter_source=worlds.source_adapter()).settled()

    assert world.observed.resolved is not None
    train = world.observed.resolved.train
    assert (train.lora_rank, train.lora_alpha) == (16, 32)
    assert world.run.status.resolved is not None
    assert world.run.status.resolved.init_from_adapter_uid == "old"


SITUATIONS = [
    ("no pod yet", (), Phase.STARTING, "PodPending", "Waits for the Job controller"),
    ("no node fits", (make_pod(unschedulable="0/1 nodes: 1 Insufficient nvidia.com/gpu."),),
     Phase.STARTING, "Unschedulable", "Insufficient nvidia.com/gpu"),
    ("the image cannot be pulled", (make_pod(waiting=("ImagePullBackOff", "no such image")),),
     Phase.STARTING, "ImagePullBackOff", "no such image"),
    ("the model is fetched", (make_pod(container="model"),),
     Phase.STARTING, "Downloading", "The base model is being fetched."),
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


PREPARING = [
    ("a container of the first pod is at work", (make_pod(container="model"),), None,
     "Downloading", 0),
    ("it says how far it is", (make_pod(container="model"),),
     worlds.heartbeat(0, attempt=0, activity="Downloading (3.1 GiB)", progress=None),
     "Downloading (3.1 GiB)", 0),
    ("the trainer loads", (make_pod(),), worlds.heartbeat(0, activity="Loading", progress=None),
     "Loading", 0),
    ("a second pod downloads, and the heartbeat is still that of the first",
     (make_pod("pod-1", exit_code=75, age=timedelta(minutes=2)),
      make_pod("pod-2", container="model")),
     worlds.heartbeat(10), "Downloading", 10),
    ("a heartbeat is too long for a status", (make_pod(),),
     worlds.heartbeat(0, activity="A" * 100, progress=None), "A" * 64, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pods", "heartbeat", "activity", "step"),
    [row[1:] for row in PREPARING],
    ids=[row[0] for row in PREPARING],
)
def test_progress_says_what_is_done_before_there_are_steps(pods, heartbeat, activity, step) -> None:
    world = World(make_run()).settled().seeing(pods=pods).stored(heartbeat=heartbeat)
    progress = world.decide().status.progress

    assert progress is not None
    assert (progress.activity, progress.step) == (activity, step)
    again = world.settled().stored(heartbeat=worlds.heartbeat(0, activity="Loading", progress=None))
    moved = again.seeing(pods=(make_pod(),)).decide().status.progress
    assert moved is not None
    assert moved.activity == "Loading"


def test_progress_and_checkpoints_come_from_storage() -> None:
    status = running(checkpoints=(checkpoint(5), checkpoint(10))).run.status

    assert status.progress is not None
    assert (status.progress.step, status.progress.percent) == (10, 25)
    assert status.progress.metrics == {"loss": "1.5"}
    assert [shown.ref for shown in status.checkpoints] == [
        f"{worlds.NAME}/step-10",
        f"{worlds.NAME}/step-5",
    ]
    assert status.checkpoint_count == 2
    assert status.attempts[0].number == 1


def test_storage_that_goes_away_takes_nothing_from_status() -> None:
    world = running(checkpoints=(checkpoint(5),))

    status = world.seeing(storage=StorageView(problem="S3 is away.")).decide().status

    assert status.phase is Phase.RUNNING
    assert status.checkpoint_count == 1
    synced = status.condition("CheckpointsSynced")
    assert synced is not None
    assert (synced.status, synced.message) == (ConditionStatus.FALSE, "S3 is away.")


def test_success_needs_the_result_and_the_adapter() -> None:
    world = running(checkpoints=(checkpoint(40),), result=worlds.result())
    done = world.stored(adapter=ADAPTER)

    assert world.run.status.phase is Phase.RUNNING
    status = done.decide().status
    assert status.phase is Phase.SUCCEEDED
    assert status.adapter is not None
    assert status.completion_time == worlds.NOW
    assert status.condition("Succeeded").status is ConditionStatus.TRUE  # type: ignore[union-attr]


def test_a_failed_reward_is_told_in_one_sentence() -> None:
    world = running(result=worlds.result(Exit.ENVIRONMENT, worlds.termination()))
    status = world.run.status

    assert status.phase is Phase.FAILED
    assert status.failure is not None
    assert status.failure.message == "The reward raised."
    assert status.condition("Stalled").message == "The reward raised. See flash log."  # type: ignore[union-attr]


ENDED = [
    ("the index does not know the requirement", 70, worlds.termination("PackageNotFound", "None."),
     "packages", "PodFailurePolicy", "PackageNotFound", "None."),
    ("the dataset is unusable", 72, None, "trainer", "PodFailurePolicy", "DataInvalid", "dataset"),
    ("storage stayed away", 75, None, "trainer", "BackoffLimitExceeded", "StorageUnavailable",
     "did not answer"),
    ("a crash without words", 139, None, "trainer", "BackoffLimitExceeded", "TrainerFailed",
     "killed by signal 11"),
    ("an unknown code", 3, None, "trainer", "BackoffLimitExceeded", "TrainerFailed",
     "exit code 3"),
    ("the limit of time", 143, None, "trainer", "DeadlineExceeded", "WallClockExceeded",
     "wall-clock"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "termination", "container", "job_reason", "reason", "sentence"),
    [row[1:] for row in ENDED],
    ids=[row[0] for row in ENDED],
)
def test_a_failed_job_is_explained_by_its_last_pod(
    code, termination, container, job_reason, reason, sentence
) -> None:
    world = running()
    [job] = world.observed.jobs
    pod = make_pod(exit_code=code, termination=termination, container=container)
    decision = world.seeing(pods=(pod,), jobs=(worlds.failed_job(job, job_reason),)).decide()

    assert decision.status.phase is Phase.FAILED
    assert decision.status.failure is not None
    assert decision.status.failure.reason == reason
    assert sentence in decision.status.failure.message


ONWARD = [
    ("CUDA ran out of memory", {"exit_code": 65}, "large", ()),
    ("the host ran out of memory", {"exit_code": 137, "reason": "OOMKilled"}, "large", ()),
    ("the GPU is broken", {"exit_code": 66}, "small", ("node-1",)),
]


@pytest.mark.parametrize(
    ("ending", "pool", "avoided"), [row[1:] for row in ONWARD], ids=[row[0] for row in ONWARD]
)
def test_a_failure_of_the_place_goes_on_in_another_place(ending, pool, avoided) -> None:
    world = running()
    [job] = world.observed.jobs
    pod = make_pod(**ending)
    decision = world.seeing(pods=(pod,), jobs=(worlds.failed_job(job),)).decide()
    after = world.seeing(pods=(pod,), jobs=(worlds.failed_job(job),)).settled()

    config_map, second = decision.apply
    assert config_map["metadata"]["name"] == f"{worlds.NAME}-1-spec"
    assert second["metadata"]["name"] == f"{worlds.NAME}-1"
    assert decision.status.resolved is not None
    assert decision.status.resolved.pool == pool
    affinity = str(second["spec"]["template"]["spec"].get("affinity", ""))
    assert all(node in affinity for node in avoided)
    assert after.run.status.phase is Phase.RETRYING
    assert {job["spec"].get("suspend") for job in after.observed.jobs} == {None, True}


def test_memory_that_no_pool_has_more_of_fails_the_run() -> None:
    world = running()
    large = replace(
        world, platform=worlds.PLATFORM.model_copy(update={"pools": (worlds.PLATFORM.pools[0],)})
    )
    [job] = world.observed.jobs
    status = (
        large.seeing(pods=(make_pod(exit_code=65),), jobs=(worlds.failed_job(job),)).decide().status
    )

    assert status.failure is not None
    assert status.failure.reason == "CudaOutOfMemory"
    assert "train.batch_size" in status.failure.hint


def test_cancel_stops_the_job_and_says_what_was_kept() -> None:
    world = running(checkpoints=(checkpoint(10),)).switched(cancel=True)

    first = world.decide()
    ended = world.act(first).seeing(pods=(make_pod(exit_code=40),))
    last = ended.decide()

    assert [delete.name for delete in first.delete] == [worlds.NAME]
    assert first.status.phase is Phase.CANCELLING
    assert last.status.phase is Phase.CANCELLED
    assert last.status.condition("Ready").message == (  # type: ignore[union-attr]
        f"Cancelled; 1 checkpoint kept, the newest is {worlds.NAME}/step-10."
    )


def test_a_run_cancelled_before_it_began_makes_nothing() -> None:
    decision = World(make_run(cancel=True)).decide()

    assert decision.status.phase is Phase.CANCELLED
    assert decision.apply == ()


def test_suspend_pauses_the_job_and_resume_wakes_it() -> None:
    world = running().switched(suspend=True)
    pausing = world.decide()
    paused = world.act(pausing).seeing(pods=(make_pod(exit_code=40),)).settled()
    waking = paused.switched(suspend=False).decide()

    assert pausing.patch[0].body == {"spec": {"suspend": True}}
    assert paused.run.status.phase is Phase.SUSPENDED
    assert waking.patch[0].body == {"spec": {"suspend": False}}


def test_a_finished_run_stays_finished_when_its_job_goes_away() -> None:
    done = running(result=worlds.result(), adapter=ADAPTER).settled()
    swept = done.seeing(jobs=(), pods=(), resolved=None, has_secrets=False)

    decision = swept.decide()

    assert decision.status.phase is Phase.SUCCEEDED
    assert decision.apply == ()
    assert decision.secrets is None


def test_the_last_pod_of_a_finished_run_is_still_accounted_for() -> None:
    done = running(result=worlds.result(), adapter=ADAPTER).settled()
    ended = done.seeing(
        pods=(make_pod(exit_code=0, age=timedelta(minutes=2)),), storage=StorageView()
    ).settled()

    assert done.run.status.gpu_seconds == 0
    assert ended.run.status.gpu_seconds == 120
    assert ended.run.status.attempts[0].end == worlds.NOW
    assert ended.run.status.phase is Phase.SUCCEEDED


def test_an_attempt_says_where_it_resumed_and_where_it_got() -> None:
    first = make_pod("pod-0", exit_code=40, termination=worlds.termination(), number=0)
    world = running(
        checkpoints=(checkpoint(5),), claims=(worlds.claim("pod-0", 1), worlds.claim("pod-1", 2))
    ).seeing(pods=(first, make_pod("pod-1", age=timedelta(seconds=5))))

    [ended, active] = world.decide().status.attempts
    assert (ended.number, ended.from_step, ended.to_step, ended.exit_code) == (1, 0, 7, 40)
    assert (active.number, active.from_step, active.to_step) == (2, 5, None)


def test_a_jobs_time_to_live_starts_only_after_the_outcome_is_written() -> None:
    finishing = running().stored(result=worlds.result(), adapter=ADAPTER)
    first = finishing.decide()
    second = finishing.act(first).decide()

    assert first.patch == ()
    assert second.patch[0].body == {"spec": {"ttlSecondsAfterFinished": 3600}}
    assert second.sweep == ("live/0b5e-uid.json",)


def test_a_job_that_vanishes_under_a_live_run_is_made_again() -> None:
    decision = running().seeing(jobs=(), pods=()).decide()

    assert [manifest["kind"] for manifest in decision.apply] == ["Job"]


def test_access_is_renewed_at_half_life() -> None:
    world = running()

    assert world.later(hours=5).decide().access is None
    assert world.later(hours=7).decide().access is not None


def test_a_save_request_is_handed_on_once() -> None:
    world = running().switched(save_request="now-1")
    first = world.decide()

    assert first.control is not None
    assert first.control.save_request == "now-1"
    assert world.act(first).decide().control is None


def test_a_silent_pod_is_ended_and_a_lost_one_is_fenced_first() -> None:
    silent = running().later(minutes=31)
    lost = silent.seeing(pods=(make_pod(deleted=timedelta(0)),))

    assert [(d.name, d.force) for d in silent.decide().delete] == [("pod-1", False)]
    decision = lost.decide()
    assert decision.supersede == 1
    assert [(d.name, d.force) for d in decision.delete] == [("pod-1", True)]


def test_progress_alone_is_not_written_more_often_than_every_five_seconds() -> None:
    world = running()
    soon = world.later(seconds=2).stored(heartbeat=worlds.heartbeat(12)).decide()
    later = world.later(seconds=6).stored(heartbeat=worlds.heartbeat(12)).decide()

    assert soon.status == world.run.status
    assert soon.requeue_seconds == 3
    assert later.status.progress is not None
    assert later.status.progress.step == 12


def test_deletion_needs_nothing_from_us() -> None:
    world = running()
    decision = replace(world, run=world.run.model_copy(update={"deleting": True})).decide()

    assert (decision.apply, decision.patch, decision.delete) == ((), (), ())


def test_each_event_is_told_once() -> None:
    world = running()
    decision = world.stored(checkpoints=(checkpoint(10),)).decide()
    after = world.stored(checkpoints=(checkpoint(10),)).act(decision)

    assert [event.reason for event in decision.events] == ["CheckpointUploaded"]
    assert after.decide().events == ()


# --- several GPUs, several nodes ------------------------------------------------------------------

LEADER = make_pod(index=0)
MEMBER = make_pod("pod-2", index=1, node="node-2")


def member(**ending) -> dict:
    return make_pod("pod-2", index=1, node="node-2", **ending)


def test_a_run_on_two_nodes_gets_a_service_before_its_job() -> None:
    world = World(make_run({"model": worlds.WIDE}), platform=worlds.NODES)
    decision = world.decide()

    assert [manifest["kind"] for manifest in decision.apply] == ["ConfigMap", "Service", "Job"]
    assert decision.status.resolved is not None
    assert (decision.status.resolved.gpus, decision.status.resolved.nodes) == (4, 2)
    assert decision.status.resolved.sharded


def test_the_trainer_reads_the_scale_that_its_pods_have() -> None:
    settled = World(make_run({"model": worlds.WIDE}), platform=worlds.NODES).settled()

    assert settled.observed.resolved is not None
    assert settled.observed.resolved.scale == Scale(nodes=2, gpus=2, sharded=True)


def test_a_batch_that_the_gpus_cannot_share_is_refused_with_the_number_that_works() -> None:
    run = make_run({"model": worlds.WIDE, "train": {"batch_size": 6}})
    status = World(run, platform=worlds.NODES).decide().status

    assert status.failure is not None
    assert "train.batch_size: 6 cannot be divided" in status.failure.message
    assert "use a multiple of 4" in status.failure.message


@pytest.mark.parametrize("kind", ["ConfigMap", "Service"])
def test_what_the_pods_of_two_nodes_need_is_made_again_when_someone_deletes_it(kind) -> None:
    world = worlds.on_two_nodes()
    gone = {"ConfigMap": {"resolved": None}, "Service": {"has_peers": False}}[kind]

    [made] = world.seeing(**gone).decide().apply

    assert made["kind"] == kind
    if kind == "ConfigMap":
        assert world.observed.resolved is not None
        text = made["data"]["spec.json"]
        assert ResolvedRun.model_validate_json(text) == world.observed.resolved


def test_a_job_that_vanishes_is_made_again_at_the_same_scale() -> None:
    world = worlds.on_two_nodes().seeing(jobs=(), pods=())
    wider = worlds.NODES.pools[0].model_copy(update={"gpus_per_node": 8, "max_nodes": 4})
    changed = replace(world, platform=worlds.NODES.model_copy(update={"pools": (wider,)}))

    for place in (world, changed):
        [job] = place.decide().apply
        assert objects.scale(job) == Scale(nodes=2, gpus=2, sharded=True)


def test_a_run_whose_scale_no_pool_has_any_more_says_so() -> None:
    world = worlds.on_two_nodes().seeing(jobs=(), pods=())
    narrow = worlds.NODES.pools[0].model_copy(update={"max_nodes": 1})
    status = replace(world, platform=worlds.NODES.model_copy(update={"pools": (narrow,)})).decide()

    assert status.status.failure is not None
    assert status.status.failure.reason == "NoPool"


def test_batching_is_shown_once_the_trainer_told_it_and_stays() -> None:
    told = worlds.heartbeat(
        10, batching=Batching(world_size=4, micro_batch_size=2, gradient_accumulation_steps=4)
    )
    world = worlds.on_two_nodes(heartbeat=told)
    after = world.stored(heartbeat=None).settled()

    for seen in (world, after):
        assert seen.run.status.resolved is not None
        assert seen.run.status.resolved.batching == BatchingStatus(
            world_size=4, micro_batch_size=2, gradient_accumulation_steps=4
        )


@pytest.mark.parametrize("heartbeat", [None, worlds.heartbeat(0)], ids=["none", "an early one"])
def test_batching_of_a_run_that_ended_between_two_looks_comes_from_its_result(
    heartbeat: Heartbeat | None,
) -> None:
    cut = Batching(world_size=4, micro_batch_size=2, gradient_accumulation_steps=4)
    ended = worlds.result().model_copy(update={"batching": cut})
    status = worlds.on_two_nodes().stored(heartbeat=heartbeat, result=ended).decide().status

    assert status.resolved is not None
    assert status.resolved.batching == BatchingStatus(
        world_size=4, micro_batch_size=2, gradient_accumulation_steps=4
    )


def test_batching_of_an_earlier_scale_is_forgotten() -> None:
    told = worlds.heartbeat(
        10, batching=Batching(world_size=8, micro_batch_size=1, gradient_accumulation_steps=4)
    )
    status = worlds.on_two_nodes(heartbeat=told).run.status

    assert status.resolved is not None
    assert status.resolved.batching is None


TEAMS = [
    ("both train", (LEADER, MEMBER), Phase.RUNNING, "Training", "at work"),
    ("one pod is not made yet", (LEADER,), Phase.STARTING, "PodPending", "1 of 2 pods"),
    ("no node fits the member", (LEADER, member(unschedulable="0/2 nodes are available.")),
     Phase.STARTING, "Unschedulable", "No node fits: 1 of 2 pods: 0/2 nodes are available."),
    ("no node fits either",
     (make_pod(index=0, unschedulable="Insufficient cpu."), member(unschedulable="Insufficient.")),
     Phase.STARTING, "Unschedulable", "2 of 2 pods: Insufficient cpu."),
    ("the member still fetches the model", (LEADER, member(container="model")),
     Phase.STARTING, "Downloading", "The base model is being fetched."),
    ("the member's image cannot be pulled", (LEADER, member(waiting=("ErrImagePull", "denied"))),
     Phase.STARTING, "ErrImagePull", "denied"),
    ("the member failed and the leader has not noticed", (LEADER, member(exit_code=75)),
     Phase.RETRYING, "PodPending", "StorageUnavailable. Waits for its other pods to end."),
    ("the member is done before the leader", (LEADER, member(exit_code=0)),
     Phase.RETRYING, "Training", "at work"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pods", "phase", "reason", "sentence"), [r[1:] for r in TEAMS], ids=[row[0] for row in TEAMS]
)
def test_status_says_what_the_pods_do_together(pods, phase, reason, sentence) -> None:
    status = worlds.on_two_nodes().seeing(pods=pods).decide().status

    ready = status.condition("Ready")
    assert ready is not None
    assert ready.reason == reason
    assert sentence in ready.message
    assert status.phase is (Phase.RUNNING if reason == "Training" else phase)


def test_scheduled_is_about_all_pods() -> None:
    def scheduled(*pods):
        found = worlds.on_two_nodes(*pods).run.status.condition("Scheduled")
        assert found is not None
        return found.status, found.message

    assert scheduled() == (ConditionStatus.TRUE, "On nodes node-1, node-2.")
    assert scheduled(LEADER)[0] is ConditionStatus.UNKNOWN
    held = member(unschedulable="0/2 nodes are available.")
    assert scheduled(LEADER, held) == (
        ConditionStatus.FALSE,
        "1 of 2 pods: 0/2 nodes are available.",
    )


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


def test_members_whose_leader_is_gone_explain_a_failed_job_themselves() -> None:
    world = worlds.on_two_nodes()
    [job] = world.observed.jobs
    pods = (member(exit_code=72),)
    status = world.seeing(pods=pods, jobs=(worlds.failed_job(job),)).decide().status

    assert status.failure is not None
    assert status.failure.reason == "DataInvalid"
    assert status.failure.message.startswith("In pod pod-2: ")
    assert [attempt.pod for attempt in status.attempts] == ["pod-1"]


def test_gpu_time_counts_every_gpu_of_every_node() -> None:
    ended = (make_pod(index=0, exit_code=40, age=timedelta(minutes=2)), member(exit_code=41))
    world = worlds.on_two_nodes(*ended)

    assert world.run.status.attempts[0].gpus == 4
    assert world.run.status.gpu_seconds == 4 * 120


def test_a_member_without_memory_takes_the_run_to_a_larger_place() -> None:
    pools = (
        *worlds.NODES.pools,
        worlds.NODES.pools[0].model_copy(update={"name": "more", "max_nodes": 4}),
    )
    world = replace(
        worlds.on_two_nodes(), platform=worlds.NODES.model_copy(update={"pools": pools})
    )
    [job] = world.observed.jobs
    pods = (make_pod(index=0, exit_code=67), member(exit_code=65, ended=SECOND))
    decision = world.seeing(pods=pods, jobs=(worlds.failed_job(job),)).decide()

    config_map, service, second = decision.apply
    assert objects.scale(second) == Scale(nodes=4, gpus=2, sharded=True)
    assert service["metadata"]["name"] == f"{worlds.NAME}-1-peers"
    spec = ResolvedRun.model_validate_json(config_map["data"]["spec.json"])
    assert spec.scale == objects.scale(second)
    ready = decision.status.condition("Ready")
    assert ready is not None
    assert ready.message == (
        "CudaOutOfMemory: goes on in pool more on 8 GPUs from the newest checkpoint."
    )


def test_every_node_with_a_broken_gpu_is_avoided() -> None:
    world = worlds.on_two_nodes()
    [job] = world.observed.jobs
    pods = (make_pod(index=0, exit_code=67), member(exit_code=66, ended=SECOND))
    *_, second = world.seeing(pods=pods, jobs=(worlds.failed_job(job),)).decide().apply

    assert "node-2" in str(second["spec"]["template"]["spec"]["affinity"])
    assert "node-1" not in str(second["spec"]["template"]["spec"]["affinity"])
    assert objects.scale(second) == objects.scale(job)


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


def test_the_patience_with_an_attempt_begins_when_its_last_pod_has_started() -> None:
    late = member(age=-timedelta(minutes=35))
    world = worlds.on_two_nodes().seeing(pods=(LEADER, late)).stored(heartbeat=None)

    assert world.later(minutes=40).decide().delete == ()
    assert world.later(minutes=66).decide().delete != ()


def test_a_lost_member_is_given_up_and_the_leaders_claim_stays() -> None:
    gone = member(deleted=timedelta(0))
    world = worlds.on_two_nodes(make_pod(index=0), gone).later(minutes=11)
    alive = world.stored(heartbeat=worlds.heartbeat(12, updated=world.now))

    decision = alive.decide()
    assert [(d.name, d.force) for d in decision.delete] == [("pod-2", True)]
    assert decision.supersede is None


def test_a_lost_leader_is_fenced_and_a_member_that_trains_is_left_alone() -> None:
    gone = make_pod(index=0, deleted=timedelta(0))
    decision = worlds.on_two_nodes(gone, MEMBER).later(minutes=11).decide()

    assert [(d.name, d.force) for d in decision.delete] == [("pod-1", True)]
    assert decision.supersede == 1


@pytest.mark.parametrize("switch", ["suspend", "cancel"])
def test_a_lost_pod_holds_up_neither_suspending_nor_cancelling(switch) -> None:
    world = worlds.on_two_nodes().switched(**{switch: True}).settled()
    stopping = (make_pod(index=0, exit_code=40), member(deleted=timedelta(0)))
    waiting = world.seeing(pods=stopping).settled()
    stuck = waiting.later(minutes=11)

    assert waiting.run.status.phase in (Phase.RUNNING, Phase.CANCELLING)
    assert [(d.name, d.force) for d in stuck.decide().delete] == [("pod-2", True)]
    assert stuck.settled().run.status.phase in (Phase.SUSPENDED, Phase.CANCELLED)


# --- signs of life --------------------------------------------------------------------------------


def test_a_trainer_that_cannot_be_heard_is_not_taken_for_dead() -> None:
    world = running().later(minutes=45)
    away = world.seeing(storage=StorageView(problem="S3 is away."))
    still = away.act(away.decide()).later(minutes=45)
    back = still.stored(problem="", heartbeat=worlds.heartbeat(10))

    assert world.decide().delete != ()
    assert away.decide().delete == ()
    assert still.decide().delete == ()
    assert back.decide().delete == ()
    assert back.later(minutes=31).settled().later(minutes=31).decide().delete != ()


def test_a_trainers_warning_is_in_the_status_and_told_once() -> None:
    sentence = "The reward was the same for every completion of the last 20 steps."
    world = running().stored(heartbeat=worlds.heartbeat(11, warning=sentence))
    decision = world.decide()

    ready = decision.status.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.TRUE, "TrainingWarning")
    assert ready.message == sentence
    told = [(event.reason, event.message, event.warning) for event in decision.events]
    assert told == [("TrainingWarning", sentence, True)]
    assert world.act(decision).decide().events == ()


# --- what holds for every world -------------------------------------------------------------------

pods = st.builds(
    make_pod,
    name=st.sampled_from(["pod-0", "pod-1", "pod-2"]),
    index=st.sampled_from([None, 0, 1]),
    exit_code=st.one_of(st.none(), st.integers(0, 255)),
    container=st.sampled_from(["model", "packages", "trainer"]),
    reason=st.sampled_from(["Error", "OOMKilled"]),
    disrupted=st.sampled_from(["", "PreemptionByScheduler"]),
    unschedulable=st.sampled_from(["", "0/1 nodes are available."]),
    waiting=st.sampled_from([None, ("ImagePullBackOff", "x"), ("CreateContainerConfigError", "y")]),
)
storages = st.builds(
    StorageView,
    problem=st.sampled_from(["", "", "", "S3 is away."]),
    environment=st.sampled_from([None, PUSHED.environment]),
    heartbeat=st.sampled_from(
        [None, worlds.heartbeat(3), worlds.heartbeat(9, warning="No spread.")]
    ),
    result=st.sampled_from([None, None, worlds.result(), worlds.result(70), worlds.result(72)]),
    claims=st.sampled_from([(), (worlds.claim(),)]),
    checkpoints=st.sampled_from([(), (checkpoint(5),), (checkpoint(5), checkpoint(10))]),
    adapter=st.sampled_from([None, ADAPTER]),
)
controls = st.fixed_dictionaries(
    {}, optional={"suspend": st.booleans(), "cancel": st.booleans(), "save_request": st.just("s")}
)


@st.composite
def any_world(draw: st.DrawFn) -> World:
    world = World(
        make_run(
            {"algorithm": draw(st.sampled_from(["sft", "grpo"]))}
            | {"model": draw(st.sampled_from([worlds.TINY, worlds.WIDE]))}
            | ({"train": {"max_tokens": 32, "max_length": 128}}),
            **draw(controls),
        ),
        platform=draw(st.sampled_from([worlds.PLATFORM, worlds.NODES])),
    )
    if draw(st.booleans()):
        world = world.settled()
        if draw(st.booleans()):
            jobs = tuple(map(worlds.failed_job, world.observed.jobs))
            world = world.seeing(jobs=jobs)
    found = {pod["metadata"]["name"]: pod for pod in draw(st.lists(pods, max_size=3))}
    return world.seeing(pods=tuple(found.values()), storage=draw(storages))


@settings(max_examples=300, deadline=None)
@given(any_world())
def test_decisions_settle(world: World) -> None:
    for _ in range(6):  # a retry in another place takes a pass of its own
        world = world.act(world.decide())
    decision = world.decide()

    assert decision.status == world.run.status
    assert (decision.apply, decision.patch, decision.secrets) == ((), (), None)
    assert decision.events == ()


@settings(max_examples=200, deadline=None)
@given(any_world())
def test_the_same_world_gets_the_same_decision(world: World) -> None:
    assert world.decide() == world.decide()


@settings(max_examples=200, deadline=None)
@given(any_world(), storages)
def test_an_outcome_is_for_ever(world: World, storage: StorageView) -> None:
    done = world.act(world.decide())
    if done.run.status.phase not in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED):
        return
    after = done.seeing(jobs=(), pods=(), storage=storage).settled()

    assert after.run.status.phase is done.run.status.phase
    assert after.observed.jobs == ()


@settings(max_examples=200, deadline=None)
@given(any_world())
def test_status_stays_small_and_readable(world: World) -> None:
    status = world.act(world.decide()).run.status

    assert len(str(status.to_patch())) < 10_000
    for condition in status.conditions:
        assert condition.reason
        assert "\n" not in condition.message
