"""Passes over runs on a real API server and a real store; tests act as kubelet and trainer."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flashrun.api import config, names
from flashrun.api.exits import Exit, Termination
from flashrun.api.records import CheckpointEvaluation, Claim, TrainerControl
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Unreachable
from flashrun.cluster_requests import Request
from flashrun.controller import bounded_answers
from flashrun.controller.lease import NotLeading
from flashrun.controller.status_writer import StatusWriter
from flashrun.store_errors import StorageForbidden
from tests.controller.stage import ENVIRONMENT, Kubelet, World, flash_run, now
from tests.plan.worlds import evaluation

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"
DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def said(reason: str, hint: str = "") -> str:
    return Termination(reason=reason, message="It was so.", hint=hint).model_dump_json()


# --- a run that goes well -------------------------------------------------------------------------


async def test_a_run_reaches_its_end_and_stays_there(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.claim()
    trainer.beat(3)
    run = await world.until(RUN, lambda run: run.status.progress)
    assert (run.status.phase, run.status.progress.step) == ("Running", 3)
    assert run.status.progress.metrics == {"loss": "0.25"}

    trainer.commit(5)
    trainer.beat(6, commits=1)
    run = await world.until(RUN, lambda run: run.status.checkpoints)
    assert run.status.checkpoints[0].ref == f"{RUN}/step-5"

    trainer.publish()
    trainer.conclude(0)
    await trainer.end(0)
    run = await world.phase(RUN, "Succeeded")
    assert run.status.adapter is not None
    assert run.status.adapter.ref == RUN
    assert run.status.condition("Succeeded").status == "True"

    await world.cluster.delete("Job", world.namespace, names.job_name(RUN, run.uid, 0))
    await asyncio.sleep(0.5)
    before = await world.cluster.get(names.KIND, world.namespace, RUN)
    await world.pass_over(RUN)
    await world.pass_over(RUN)
    after = await world.cluster.get(names.KIND, world.namespace, RUN)
    assert await world.jobs(RUN) == []
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_scores_on_held_out_examples_reach_the_status(world: World):
    await world.submit(RUN, eval={"metric": "exact"})
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.claim()
    trainer.commit(5, CheckpointEvaluation(metric="exact", score=0.5))
    trainer.beat(5, commits=1, evaluation=evaluation({0: 0.25, 5: 0.5}, "exact"))
    run = await world.until(RUN, lambda run: run.status.evaluation)
    assert run.status.evaluation.to_manifest() == {
        "metric": "exact",
        "baseline": {"step": 0, "score": "0.25"},
        "last": {"step": 5, "score": "0.5"},
        "best": {"step": 5, "score": "0.5"},
        "examples": 32,
        "unscored": 1,
    }
    assert [item.score for item in run.status.checkpoints] == ["0.5"]
    assert run.status.condition("ScoreKept").status == "True"

    trainer.publish()
    trainer.conclude(0, evaluation=evaluation({0: 0.25, 5: 0.5, 10: 0.125}, "exact"))
    await trainer.end(0)
    run = await world.phase(RUN, "Succeeded")
    fell = run.status.condition("ScoreKept")
    assert (fell.status, fell.reason) == ("False", "ScoreFell")
    assert fell.message.endswith(f"step-5 with 0.5: flash pull {RUN} --best.")


async def test_the_job_of_a_finished_run_expires_after_its_status_is_written(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    await (await world.trainer(RUN)).succeed()
    await world.phase(RUN, "Succeeded")
    job = await world.job(RUN)
    assert "ttlSecondsAfterFinished" not in job["spec"]
    await world.pass_over(RUN)
    job = await world.job(RUN)
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600


async def test_a_pass_that_finds_nothing_new_writes_nothing(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3)
    await world.phase(RUN, "Running")
    await world.pass_over(RUN)
    before = await world.cluster.get(names.KIND, world.namespace, RUN)
    for _ in range(3):
        await world.pass_over(RUN)
    after = await world.cluster.get(names.KIND, world.namespace, RUN)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_a_restarted_operator_finds_its_way(world: World):
    await world.submit(RUN)
    await world.launched(RUN)
    world.restart()
    trainer = await world.trainer(RUN)
    trainer.claim()
    trainer.commit(5)
    world.restart()
    run = await world.until(RUN, lambda run: run.status.checkpoint_count == 1)
    assert await world.jobs(RUN) == [0]
    assert run.status.phase == "Running"


# --- failures, each once --------------------------------------------------------------------------

ENDS = [
    ("a config that cannot work", 64, {"message": said("ConfigInvalid")}, "ConfigInvalid"),
    ("a model that is not there", 69, {"message": said("ModelUnavailable")}, "ModelUnavailable"),
    ("an environment that raises", 70, {"message": said("RewardFailed")}, "RewardFailed"),
    ("a loss that is no number", 71, {"message": said("Diverged")}, "Diverged"),
    ("data that cannot be used", 72, {"message": said("DataInvalid")}, "DataInvalid"),
]


@pytest.mark.parametrize(
    ("code", "words", "reason"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS]
)
async def test_what_would_fail_again_ends_the_run(
    world: World, code: int, words: dict[str, Any], reason: str
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    await trainer.end(code, **words)
    run = await world.phase(RUN, "Failed")
    assert run.status.failure is not None
    assert (run.status.failure.reason, run.status.failure.exit_code) == (reason, code)
    assert run.status.condition("Stalled").status == "True"
    assert await world.jobs(RUN) == [0]


AGAIN = [
    ("an interrupted trainer that saved", 40, {}, 0),
    ("an interrupted trainer that did not", 41, {}, 0),
    ("a trainer ended by a signal", 143, {}, 0),
    ("a pod that was preempted", 137, {"conditions": (DISRUPTED,)}, 0),
    ("storage that is down", 75, {}, 1),
    ("broken communication between GPUs", 67, {}, 1),
    ("a trainer that was killed", 137, {}, 1),
    ("a trainer that crashed", 139, {}, 1),
]


async def test_what_may_go_well_next_time_is_tried_again_by_the_job(world: World):
    """All at once: the Job controller waits ten seconds before each second pod."""

    async def try_again(number: int) -> tuple[str, int, int | None]:
        what, code, words, _ = AGAIN[number]
        name = f"{RUN}-case-{number}"
        await world.submit(name)
        await world.phase(name, "Starting")
        first = await world.trainer(name)
        await first.end(code, **words)
        second = await world.pod(name, seconds=40)
        assert second["metadata"]["name"] != first.name
        run = await world.phase(name, "Retrying")
        job = await world.job(name)
        return what, job["status"].get("failed", 0), run.status.attempts[0].exit_code

    found = await asyncio.gather(*map(try_again, range(len(AGAIN))))
    assert list(found) == [(what, counted, code) for what, code, _, counted in AGAIN]


ELSEWHERE = [
    ("a GPU without enough memory", 65, {}),
    ("a host without enough memory", 137, {"reason": "OOMKilled"}),
]


@pytest.mark.parametrize(
    ("code", "words"), [case[1:] for case in ELSEWHERE], ids=[case[0] for case in ELSEWHERE]
)
async def test_what_was_too_big_goes_on_in_a_larger_pool(
    world: World, code: int, words: dict[str, Any]
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.claim()
    trainer.commit(5)
    await trainer.end(code, **words)
    run = await world.until(
        RUN, lambda run: run.status.resolved and run.status.resolved.pool == "large"
    )
    assert run.status.phase in ("Retrying", "Starting")
    assert await world.jobs(RUN) == [0, 1]
    again = await world.trainer(RUN, job=1, attempt=2)
    await again.succeed()
    run = await world.phase(RUN, "Succeeded")
    assert run.status.checkpoint_count == 2


async def test_a_host_without_memory_is_tried_in_each_place_once_within_one_wall_clock(
    world: World,
):
    """The Job controller would start a pod again that the kernel ended."""
    limit = world.platform.trainer.wall_clock_seconds
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    await (await world.trainer(RUN)).end(137, reason="OOMKilled")
    world.ahead = timedelta(hours=1)
    await world.until(RUN, lambda run: run.status.resolved.pool == "large")
    job = await world.job(RUN, 1)
    assert job["spec"]["activeDeadlineSeconds"] <= limit - 3600 + 30
    world.ahead = timedelta(0)

    await (await world.trainer(RUN, job=1, attempt=2)).end(137, reason="OOMKilled")
    run = await world.phase(RUN, "Failed")
    failure = run.status.failure
    assert (failure.reason, failure.exit_code) == ("HostOutOfMemory", 137)
    assert "Pool large gives the trainer 64Gi of main memory." in failure.message
    assert "No pool that fits the run has more main memory per GPU." in failure.message
    assert "train.batch_size is 32" in failure.hint
    assert len(run.status.attempts) == 2
    assert await world.jobs(RUN) == []


async def test_a_broken_gpu_is_avoided(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    await world.bind(pod, "node-with-broken-gpu")
    await Kubelet(world.cluster).end(pod, 66)
    await world.until(
        RUN, lambda run: "the run continues in pool" in run.status.condition("Ready").message
    )
    job = await world.job(RUN, 1)
    affinity = job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchFields"][0]["values"] == ["node-with-broken-gpu"]


async def test_counted_retries_come_to_an_end(make_world: Callable[..., World]):
    world = make_world(retries=1)
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    for _ in range(2):
        trainer = await world.trainer(RUN)
        await trainer.end(75, message=said("StorageUnavailable"))
    run = await world.phase(RUN, "Failed", seconds=40)
    assert run.status.failure is not None
    assert run.status.failure.reason == "StorageUnavailable"


async def test_a_terminal_record_is_believed_whatever_the_pod_says(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    termination = Termination(reason="RewardFailed", message="The reward raised.", hint="Mend it.")
    trainer.conclude(Exit.ENVIRONMENT, termination)
    await trainer.end(0)
    run = await world.phase(RUN, "Failed")
    assert run.status.failure is not None
    assert (run.status.failure.reason, run.status.failure.hint) == ("RewardFailed", "Mend it.")


async def test_a_trainer_that_leaves_no_result_has_failed_whatever_it_says(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3)
    await trainer.end(0)
    run = await world.phase(RUN, "Failed")
    assert run.status.failure is not None
    assert run.status.failure.reason == "ResultMissing"


async def test_an_image_that_cannot_be_named_fails_at_once(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    await Kubelet(world.cluster).waits(pod, "InvalidImageName", "couldn't parse image name")
    run = await world.phase(RUN, "Failed")
    assert run.status.failure is not None
    assert run.status.failure.reason == "ImagePullFailed"


async def test_a_trainer_without_a_sign_of_life_is_ended(make_world: Callable[..., World]):
    world = make_world(stall_seconds=60)
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3)
    await world.phase(RUN, "Running")
    world.ahead = timedelta(seconds=120)
    await world.pass_over(RUN)
    pods = await world.cluster.list("Pod", world.namespace, {names.RUN_LABEL: RUN})
    states = {pod["metadata"]["name"]: "deletionTimestamp" in pod["metadata"] for pod in pods}
    assert states.get(trainer.name, True)


@pytest.mark.parametrize("ahead", [timedelta(minutes=31), timedelta(minutes=-31)])
async def test_a_healthy_trainer_is_left_alone_by_an_operator_whose_clock_is_wrong(
    world: World, ahead: timedelta
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3)
    await world.phase(RUN, "Running")
    world.ahead, world.passing = ahead, False
    world.restart()
    for step in (4, 5):
        trainer.beat(step)
        await world.pass_over(RUN)
        pod = await world.cluster.get("Pod", world.namespace, trainer.name)
        assert "deletionTimestamp" not in pod["metadata"]


async def test_a_heartbeat_dated_ten_years_ahead_hides_no_stall(
    make_world: Callable[..., World],
):
    world = make_world(stall_seconds=60)
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3, updated=now() + timedelta(days=3650))
    await world.phase(RUN, "Running")
    world.ahead = timedelta(seconds=120)
    await world.pass_over(RUN)
    pods = await world.cluster.list("Pod", world.namespace, {names.RUN_LABEL: RUN})
    states = {pod["metadata"]["name"]: "deletionTimestamp" in pod["metadata"] for pod in pods}
    assert states.get(trainer.name, True)


async def test_an_attempt_on_a_lost_node_is_superseded_before_its_pod_is_given_up(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    await world.bind(trainer.pod, "node-lost")
    trainer.claim()
    trainer.commit(5)
    trainer.beat(6, commits=1)
    await world.phase(RUN, "Running")
    await world.cluster.delete("Pod", world.namespace, trainer.name)  # by the node controller
    await world.pass_over(RUN)
    pod = await world.cluster.get("Pod", world.namespace, trainer.name)
    assert "deletionTimestamp" in pod["metadata"]
    world.ahead = timedelta(minutes=21)
    await world.pass_over(RUN)
    claim = world.store.get_json(names.claim_key(run.storage_prefix, 1), Claim)
    assert claim.superseded
    again = await world.trainer(RUN, attempt=2)
    world.ahead = timedelta(0)
    job = await world.job(RUN)
    assert job["status"].get("failed", 0) == 0
    await again.succeed()
    await world.phase(RUN, "Succeeded")


# --- crashes --------------------------------------------------------------------------------------


class Crash(BaseException):
    """The end of a process, at a chosen write."""


@pytest.mark.parametrize("sent", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_write_leaves_work_that_the_next_process_finishes(
    world: World, sent: bool, monkeypatch: pytest.MonkeyPatch
):
    send, left = Cluster._send, 0

    async def crashing(self: Cluster, request: Request) -> tuple[int, float, bytes]:
        nonlocal left
        if request.method == "GET":
            return await send(self, request)
        left -= 1
        is_last = left == 0  # others are sent at the same time
        if is_last and not sent:
            raise Crash
        answer = await send(self, request)
        if is_last:
            raise Crash
        return answer

    crashes = 0
    for number in range(1, 20):
        name = f"flash-{number}-crash"
        await world.submit(name)
        with monkeypatch.context() as patch:
            patch.setattr(Cluster, "_send", crashing)
            left = number
            try:
                await world.pass_over(name)
            except Crash:
                crashes += 1
            survived = left > 0
        world.restart()
        await world.phase(name, "Starting")
        assert await world.jobs(name) == [0]
        await (await world.trainer(name)).succeed()
        await world.phase(name, "Succeeded")
        assert await world.jobs(name) == [0]
        if survived:
            break
    assert crashes >= 4


async def test_a_job_whose_uid_could_not_be_written_is_kept_by_the_process_that_created_it(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Another process would replace it: anybody may have created it."""

    async def failing(self: StatusWriter, patch: dict[str, Any]) -> None:
        raise Unreachable("no answer in time")

    await world.submit(RUN)
    await world.pass_over(RUN)
    created = (await world.job(RUN))["metadata"]["uid"]
    with monkeypatch.context() as patch:
        patch.setattr(StatusWriter, "write", failing)
        with pytest.raises(Unreachable):
            await world.pass_over(RUN)
    resolved = (await world.run(RUN)).status.resolved
    assert resolved is not None
    assert resolved.job_uid == ""
    run = await world.phase(RUN, "Starting")
    assert run.status.resolved is not None
    assert run.status.resolved.job_uid == (await world.job(RUN))["metadata"]["uid"] == created


async def test_nothing_is_kept_of_a_run_that_is_deleted_before_its_job_is_pinned(world: World):
    await world.submit(RUN)
    await world.pass_over(RUN)
    manifest = await world.cluster.get(names.KIND, world.namespace, RUN)
    assert manifest["metadata"]["uid"] in world.reconciler._unpinned_jobs
    await world.cluster.delete(names.KIND, world.namespace, RUN)
    await asyncio.to_thread(world.reconciler.record_deletion, manifest)
    assert not world.reconciler._unpinned_jobs


# --- secrets --------------------------------------------------------------------------------------


def secret(namespace: str, name: str, labelled: bool = True, **data: str) -> dict[str, Any]:
    labels = {names.SECRETS_LABEL: "true"} if labelled else {}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


async def test_a_run_waits_for_its_secrets_and_copies_only_what_it_names(world: World):
    await world.submit(
        RUN,
        environment={"id": ENVIRONMENT, "secrets": ["SERVICE_API_KEY"]},
        secretRefs=[{"name": "first"}, {"name": "second"}],
    )
    run = await world.until(RUN, lambda run: run.status.pending)
    assert run.status.pending.reason == "SecretMissing"
    assert "SERVICE_API_KEY" in run.status.pending.message
    assert "first, second" in run.status.pending.message
    assert run.status.condition("SecretsReady").status == "False"

    canary = "value-of-the-canary"
    await world.cluster.create(
        secret(world.namespace, "first", labelled=False, SERVICE_API_KEY=canary)
    )
    run = await world.until(RUN, lambda run: "label it" in run.status.pending.message)
    more = {"SERVICE_API_KEY": canary, "UNRELATED": "other", names.WANDB_API_KEY: "wandb"}
    await world.cluster.create(secret(world.namespace, "second", **more))
    await world.phase(RUN, "Starting")
    copied = await world.cluster.get("Secret", world.namespace, names.secrets_name(RUN, run.uid))
    assert sorted(copied["data"]) == ["SERVICE_API_KEY", names.WANDB_API_KEY]
    assert copied["immutable"] is True
    assert copied["metadata"]["ownerReferences"][0]["name"] == RUN
    assert not copied["metadata"].get("annotations")
    for kind in (names.KIND, "Job", "Pod", "ConfigMap", "Event"):
        for found in await world.cluster.list(kind, world.namespace):
            assert canary not in str(found), kind
    stored = [world.store.get_bytes(entry.key) for entry in world.store.list("runs/")]
    assert canary.encode() not in b"".join(stored)


async def test_storage_credentials_reach_one_run_and_are_renewed_in_time(
    make_world: Callable[..., World], cluster: Cluster
):
    world = make_world()
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    with pytest.raises(StorageForbidden):
        trainer.store.put_bytes("runs/other/x/y/result.json", b"{}")
    with pytest.raises(StorageForbidden):
        trainer.store.delete([names.spec_key(run.storage_prefix)])
    name = names.storage_secret_name(RUN, run.uid)
    before = await cluster.get("Secret", world.namespace, name)
    await world.pass_over(RUN)
    same = await cluster.get("Secret", world.namespace, name)
    assert same["data"] == before["data"]
    soon = {"metadata": {"annotations": {names.EXPIRES_ANNOTATION: "2026-01-01T00:00:00+00:00"}}}
    await cluster.patch("Secret", world.namespace, name, soon)
    await world.pass_over(RUN)
    renewed = await cluster.get("Secret", world.namespace, name)
    assert renewed["data"] != before["data"]


# --- control --------------------------------------------------------------------------------------


async def test_a_suspended_run_rests_and_goes_on_from_where_it_was(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    await world.bind(trainer.pod, "node-1")  # on a node, a pod has time to end
    trainer.claim()
    await world.control(RUN, suspend=True)
    await world.until(
        RUN, lambda run: run.status.condition("Ready").reason in ("Suspending", "Suspended")
    )
    trainer.commit(5)
    await trainer.end(40)
    await world.cluster.delete("Pod", world.namespace, trainer.name, grace_seconds=0)
    await world.phase(RUN, "Suspended")
    await world.control(RUN, suspend=False)
    await world.pass_over(RUN)
    again = await world.trainer(RUN, attempt=2)
    assert again.name != trainer.name
    await again.succeed()
    await world.phase(RUN, "Succeeded")
    assert await world.jobs(RUN) == [0]


async def test_a_cancelled_run_ends_and_keeps_what_was_saved(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.claim()
    trainer.commit(5)
    await world.control(RUN, cancel=True)
    run = await world.phase(RUN, "Cancelled")
    assert await world.jobs(RUN) == []
    assert run.status.checkpoint_count == 1
    assert run.status.condition("Succeeded").status == "False"


async def test_a_save_request_reaches_the_trainer_once(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    await world.trainer(RUN)
    await world.control(RUN, saveRequest="now-1")
    await world.pass_over(RUN)
    key = names.control_key(run.storage_prefix)
    assert world.store.get_json(key, TrainerControl).save_request == "now-1"
    [entry] = world.store.list(key)
    await world.pass_over(RUN)
    assert [found.modified for found in world.store.list(key)] == [entry.modified]


# --- what the cluster refuses ---------------------------------------------------------------------


async def test_a_quota_that_is_used_up_is_told_and_waited_for(world: World):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    path = {"spec": {"hard": {"count/jobs.batch": "0"}}}
    await world.kubectl("create", "-f", "-", stdin=quota | path)
    await world.submit(RUN)
    run = await world.until(
        RUN, lambda run: run.status.pending and run.status.pending.reason == "ClusterRefuses"
    )
    assert "exceeded quota" in run.status.pending.message
    await world.kubectl("delete", "resourcequota", "none")
    await world.phase(RUN, "Starting")


async def test_a_spec_that_this_operator_cannot_read_gets_a_condition(world: World):
    manifest = flash_run(world.namespace, RUN)
    manifest["spec"]["train"]["epochs"] = 1
    manifest["spec"]["environment"]["pip"] = ["not a requirement ::"]
    await world.cluster.create(manifest)
    await world.pass_over(RUN)
    found = await world.cluster.get(names.KIND, world.namespace, RUN)
    conditions = {item["type"]: item for item in found["status"]["conditions"]}
    assert conditions["Accepted"]["reason"] == "SpecUnreadable"
    assert "spec.environment.pip" in conditions["Accepted"]["message"]
    assert await world.jobs(RUN) == []
    await world.pass_over(RUN)
    again = await world.cluster.get(names.KIND, world.namespace, RUN)
    assert again["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]


async def test_a_run_that_an_earlier_version_began_ends_though_its_spec_is_too_large_now(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(config, "_PARAMS_VALUES", 100_000)
    monkeypatch.setattr(bounded_answers, "SPEC_VALUES", 100_000)
    large = {"id": ENVIRONMENT, "params": {"x": [0] * 20_000}}
    await world.submit(RUN, environment=large)
    await world.phase(RUN, "Starting")
    monkeypatch.undo()
    world.restart()
    job = (await world.job(RUN))["metadata"]
    await world.cluster.delete("Job", world.namespace, job["name"])
    await world.until(RUN, lambda run: run.status.resolved.job_uid != job["uid"])
    await (await world.trainer(RUN)).succeed()
    run = await world.phase(RUN, "Succeeded")
    assert run.spec.environment.params == large["params"]

    await world.submit("flash-2-new", environment=large)
    await world.pass_over("flash-2-new")
    found = await world.cluster.get(names.KIND, world.namespace, "flash-2-new")
    assert "more than 16,384 values" in found["status"]["pending"]["message"]


async def test_a_model_that_nobody_knows_is_refused_for_good(world: World):
    await world.submit(RUN, model="nobody/knows-it")
    run = await world.phase(RUN, "Failed")
    assert run.status.failure is not None
    assert run.status.failure.reason == "SpecInvalid"


async def test_a_replica_that_does_not_lead_writes_nothing(world: World):
    await world.submit(RUN)
    world.leading = False
    with pytest.raises(NotLeading):
        await world.pass_over(RUN)
    assert await world.jobs(RUN) == []
    assert (await world.run(RUN)).status.observed_generation == 0


# --- deletion -------------------------------------------------------------------------------------


async def test_deletion_needs_no_operator_and_leaves_storage(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.claim()
    prefix = trainer.commit(5)
    await world.cluster.delete(names.KIND, world.namespace, RUN)

    async def left() -> list[str]:
        kinds = (names.KIND, "Job", "Secret", "ConfigMap")
        found = [item for kind in kinds for item in await world.cluster.list(kind, world.namespace)]
        return [o["metadata"]["name"] for o in found if o["metadata"]["name"].startswith(RUN)]

    for _ in range(100):
        if not await left():
            break
        await asyncio.sleep(0.2)
    assert await left() == []
    assert world.store.exists(prefix + names.MANIFEST)
    assert run.uid


async def test_a_run_of_the_same_name_shares_nothing_with_an_earlier_one(world: World):
    first = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.claim()
    trainer.commit(5)
    await world.cluster.delete(names.KIND, world.namespace, RUN)
    second = await world.submit(RUN)
    run = await world.phase(RUN, "Starting", seconds=60)
    assert first.uid != second.uid == run.uid
    assert run.status.checkpoint_count == 0
    name = names.storage_secret_name(RUN, run.uid)
    secret = await world.cluster.get("Secret", world.namespace, name)
    assert secret["metadata"]["ownerReferences"][0]["uid"] == second.uid
