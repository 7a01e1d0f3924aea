"""A failed Job: how it is explained, and where a run is retried."""

from dataclasses import replace
from datetime import timedelta

import pytest

from flashrun.api import names
from flashrun.api.reasons import Phase
from flashrun.api.records import ResolvedRun, Scale
from flashrun.api.times import format_time
from tests.plan import worlds
from tests.plan.worlds import (
    PLATFORM,
    make_pod,
    member,
    running,
)

SECOND = timedelta(seconds=1)
STEM = names.object_stem(worlds.NAME, worlds.UID)


ENDED = [
    ("the package index lacks the requirement", 70, worlds.termination("PackageNotFound", "None."),
     "packages", "PodFailurePolicy", "PackageNotFound", "None."),
    ("the dataset is unusable", 72, None, "trainer", "PodFailurePolicy", "DataInvalid", "dataset"),
    ("storage stayed away", 75, None, "trainer", "BackoffLimitExceeded", "StorageUnavailable",
     "did not answer"),
    ("a crash without a message", 139, None, "trainer", "BackoffLimitExceeded", "TrainerFailed",
     "killed by signal 11"),
    ("an unknown code", 3, None, "trainer", "BackoffLimitExceeded", "TrainerFailed",
     "exit code 3"),
    ("the wall-clock limit", 143, None, "trainer", "DeadlineExceeded", "WallClockExceeded",
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


def test_a_trainer_that_succeeded_without_a_result_is_not_started_again() -> None:
    pod = make_pod(exit_code=0)
    pod["status"]["phase"] = "Failed"  # by another container
    decision = running().seeing(pods=(pod,)).decide()

    assert decision.status.failure is not None
    assert decision.status.failure.reason == "ResultMissing"
    assert [item.kind for item in decision.delete] == ["Job"]


def test_evictions_for_the_pods_own_limits_come_to_an_end() -> None:
    """The Job sees the exit code of an interruption and would go on for ever."""
    world = running()
    for number in range(1, 9):
        pod = make_pod(f"evicted-{number}", exit_code=143)
        pod["status"] |= {"reason": "Evicted", "message": "Usage of EmptyDir exceeds 64Ki."}
        world = world.seeing(pods=(pod,))
        decision = world.decide()
        if decision.status.phase is Phase.FAILED:
            break
        world = world.act(decision)

    assert number == PLATFORM.trainer.retries + 1
    assert decision.status.failure is not None
    assert decision.status.failure.reason == "Evicted"
    assert "64Ki" in decision.status.failure.message
    assert [item.kind for item in decision.delete] == ["Job"]


RETRIES = [
    ("CUDA ran out of memory", {"exit_code": 65}, "large", ()),
    ("the host ran out of memory", {"exit_code": 137, "reason": "OOMKilled"}, "large", ()),
    ("the GPU is broken", {"exit_code": 66}, "small", ("node-1",)),
]


@pytest.mark.parametrize(
    ("ending", "pool", "avoided"), [row[1:] for row in RETRIES], ids=[row[0] for row in RETRIES]
)
def test_a_failure_of_a_pool_or_node_is_retried_somewhere_else(ending, pool, avoided) -> None:
    world = running()
    [job] = world.observed.jobs
    pod = make_pod(**ending)
    decision = world.seeing(pods=(pod,), jobs=(worlds.failed_job(job),)).decide()
    after = world.seeing(pods=(pod,), jobs=(worlds.failed_job(job),)).settled()

    [second], config_map = decision.apply, world.observed.config_map  # the spec is the same
    assert config_map is not None
    volumes = second["spec"]["template"]["spec"]["volumes"]
    assert {"name": "spec", "configMap": {"name": config_map["metadata"]["name"]}} in volumes
    assert second["metadata"]["name"] == f"{STEM}-1"
    assert decision.status.resolved is not None
    assert decision.status.resolved.pool == pool
    affinity = str(second["spec"]["template"]["spec"].get("affinity", ""))
    assert all(node in affinity for node in avoided)
    assert after.run.status.phase is Phase.RETRYING
    assert {job["spec"].get("suspend") for job in after.observed.jobs} == {None, True}


def test_a_run_fails_when_no_pool_has_more_memory() -> None:
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


def test_a_full_shared_memory_is_not_tried_again() -> None:
    pod = make_pod(exit_code=143)
    message = 'Usage of EmptyDir volume "shm" exceeds the limit "2Gi".'
    pod["status"] |= {"reason": "Evicted", "message": message}
    decision = running().seeing(pods=(pod,)).decide()

    assert decision.status.failure is not None
    assert decision.status.failure.reason == "Evicted"
    assert "trainer.sharedMemory" in decision.status.failure.hint
    assert [item.kind for item in decision.delete] == ["Job"]


ELSEWHERE = [("another pool", 65), ("another node", 66)]


@pytest.mark.parametrize("code", [row[1] for row in ELSEWHERE], ids=[row[0] for row in ELSEWHERE])
def test_the_wall_clock_limit_and_the_retries_hold_over_a_change_of_place(code: int) -> None:
    world = running()
    hours = timedelta(hours=1)
    for number, used in ((0, 20 * hours), (1, 3 * hours)):
        job = world.observed.jobs[number]
        status = {"startTime": format_time(world.now - used)}
        pods = (
            make_pod(f"counted-{number}", exit_code=75, number=number, age=used, ended=hours),
            make_pod(f"moved-{number}", exit_code=code, number=number),
        )
        failed = worlds.failed_job(job)
        failed["status"] |= status
        jobs = tuple(failed if item is job else item for item in world.observed.jobs)
        decision = world.seeing(pods=pods, jobs=jobs).decide()
        [new] = [item for item in decision.apply if item["kind"] == "Job"]
        world = world.seeing(jobs=jobs, pods=pods).act(decision)
        if code == 65:
            break  # there is no third pool

    limits, moves = PLATFORM.trainer, 1 if code == 65 else 2
    hours_used = 20 if code == 65 else 23
    assert (
        new["spec"]["activeDeadlineSeconds"] == limits.wall_clock_seconds - hours_used * 3600 + 30
    )
    assert worlds.job_retries(new) == limits.retries - moves


def test_a_run_that_used_up_its_time_in_one_place_gets_no_day_in_another() -> None:
    world = running()
    [job] = world.observed.jobs
    failed = worlds.failed_job(job)
    failed["status"]["startTime"] = "2026-11-20T12:00:00Z"
    pod = make_pod(exit_code=65, age=timedelta(days=2))
    decision = world.seeing(pods=(pod,), jobs=(failed,)).decide()
    [new] = [item for item in decision.apply if item["kind"] == "Job"]

    assert new["spec"]["activeDeadlineSeconds"] == 60


def test_members_without_a_leader_explain_a_failed_job() -> None:
    world = worlds.on_two_nodes()
    [job] = world.observed.jobs
    pods = (member(exit_code=72),)
    status = world.seeing(pods=pods, jobs=(worlds.failed_job(job),)).decide().status

    assert status.failure is not None
    assert status.failure.reason == "DataInvalid"
    assert status.failure.message.startswith("In pod pod-2: ")
    assert [attempt.pod for attempt in status.attempts] == ["pod-1"]


def test_a_member_that_runs_out_of_memory_is_retried_on_more_gpus() -> None:
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
    assert worlds.job_scale(second) == Scale(nodes=4, gpus=2, sharded=True)
    assert service["metadata"]["name"] == f"{STEM}-1-peers"
    spec = ResolvedRun.model_validate_json(config_map["data"]["spec.json"])
    assert spec.scale == worlds.job_scale(second)
    ready = decision.status.condition("Ready")
    assert ready is not None
    assert ready.message == (
        "CudaOutOfMemory: the run continues in pool more on 8 GPUs from the newest checkpoint."
    )


def test_every_node_with_a_broken_gpu_is_avoided() -> None:
    world = worlds.on_two_nodes()
    [job] = world.observed.jobs
    pods = (make_pod(index=0, exit_code=67), member(exit_code=66, ended=SECOND))
    *_, second = world.seeing(pods=pods, jobs=(worlds.failed_job(job),)).decide().apply

    assert "node-2" in str(second["spec"]["template"]["spec"]["affinity"])
    assert "node-1" not in str(second["spec"]["template"]["spec"]["affinity"])
    assert worlds.job_scale(second) == worlds.job_scale(job)
