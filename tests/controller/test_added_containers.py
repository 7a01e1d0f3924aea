"""Containers that other programs add to a run's pods decide nothing, with the real Job controller.

They come before or behind the trainer, end with any code, or never.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.cluster import Cluster
from flashrun.plan.kubernetes_status import find_condition
from tests.controller.other_tenant import stretched
from tests.controller.stage import Kubelet, Object, Trainer, World

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"
MOMENT = "2026-11-22T12:00:00Z"


def ended(code: int) -> Object:
    return {"terminated": {"exitCode": code, "startedAt": MOMENT, "finishedAt": MOMENT}}


RUNS: Object = {"running": {"startedAt": MOMENT}}


def node(cluster: Cluster, **added: Object) -> Kubelet:
    """A node that starts these containers beside the trainer, one on each side of it by name."""
    return Kubelet(cluster, {name.replace("_", "-"): state for name, state in added.items()})


async def pods(world: World) -> list[Object]:
    return await world.cluster.list("Pod", world.namespace, {names.RUN_LABEL: RUN})


async def running(world: World) -> Object:
    """Submit a run and put its pod on a node."""
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    await world.bind(pod, "node-1")
    await Kubelet(world.cluster).start(pod)
    return pod


async def trained(world: World) -> Trainer:
    """Return a trainer that has stored all of its results, and whose pod still runs."""
    await running(world)
    trainer = await world.trainer(RUN)
    trainer.claim()
    trainer.commit(10)
    trainer.publish()
    trainer.conclude(0)
    return trainer


@pytest.mark.parametrize("name", ["a_proxy", "z_logs"], ids=["before it", "behind it"])
@pytest.mark.parametrize("code", [143, 70, 1, 0])
async def test_the_trainers_code_ends_the_job_whatever_another_container_ends_with(
    world: World, name: str, code: int
):
    pod = await running(world)
    await node(world.cluster, **{name: ended(code)}).end(pod, Exit.DATA)
    run = await world.phase(RUN, "Failed")
    assert run.status.failure.reason == "DataInvalid"
    job = await world.job(RUN)
    assert find_condition(job, "FailureTarget") or find_condition(job, "Failed")
    assert len(await pods(world)) == 1


@pytest.mark.parametrize("name", ["model", "packages"])
async def test_the_code_of_an_init_container_of_our_own_ends_the_job(world: World, name: str):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    waiting: Object = {"waiting": {"reason": "PodInitializing"}}
    statuses = [{"name": name, "state": ended(70), "ready": False, "restartCount": 0}]
    statuses[0] |= {"image": "trainer", "imageID": ""}
    await Kubelet(world.cluster).say(pod, "Failed", waiting, initContainerStatuses=statuses)
    run = await world.phase(RUN, "Failed")
    assert run.status.failure.reason == "EnvironmentFailed"
    assert len(await pods(world)) == 1


@pytest.mark.parametrize("code", [143, 70])
async def test_a_container_that_fails_before_the_trainer_starts_is_named_and_counted(
    make_world: Callable[..., World], code: int
):
    """As the trainer's own, 143 would be free and 70 would end the run at once."""
    world = make_world(retries=0)
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    waiting: Object = {"waiting": {"reason": "PodInitializing"}}
    await node(world.cluster, istio_init=ended(code)).say(pod, "Failed", waiting)
    run = await world.phase(RUN, "Failed")
    assert run.status.failure.reason == "AddedContainerFailed"
    assert f"Container istio-init, which another program added, ended with exit code {code}" in (
        run.status.failure.message
    )


async def test_a_run_succeeds_while_another_container_never_ends_and_its_pod_is_ended(
    world: World,
):
    trainer = await trained(world)
    await node(world.cluster, a_proxy=RUNS, z_logs=RUNS).end(trainer.pod, 0, phase="Running")
    await world.pass_over(RUN)
    assert (await world.run(RUN)).status.phase == "Succeeded"
    assert all("deletionTimestamp" in pod["metadata"] for pod in await pods(world))


async def test_a_run_whose_pod_another_container_failed_has_succeeded_and_starts_no_pod(
    world: World,
):
    trainer = await trained(world)
    await node(world.cluster, z_logs=ended(1)).end(trainer.pod, 0, phase="Failed")
    await world.phase(RUN, "Succeeded")
    world.ahead = timedelta(seconds=6)  # the Job controller has had its time
    await world.pass_over(RUN)
    assert await world.jobs(RUN) == []


async def test_a_pod_that_another_container_keeps_is_ended_and_the_next_attempt_starts(
    world: World,
):
    pod = await running(world)
    await node(world.cluster, a_proxy=RUNS).end(pod, Exit.TEMPORARY, phase="Running")
    await world.pass_over(RUN)
    [held] = await pods(world)
    assert "deletionTimestamp" in held["metadata"]
    await node(world.cluster, a_proxy=ended(143)).end(pod, Exit.TEMPORARY)
    await world.cluster.delete("Pod", world.namespace, held["metadata"]["name"], grace_seconds=0)
    again = await world.pod(RUN, seconds=40)
    assert again["metadata"]["name"] != held["metadata"]["name"]
    job = await world.job(RUN)
    assert job["status"]["failed"] == 1  # by the trainer's 75; the sidecar's 143 would be free
    run = await world.until(RUN, lambda run: len(run.status.attempts) == 2)
    assert run.status.attempts[0].reason == "StorageUnavailable"


# --- the Job controller's own clock ---------------------------------------------------------------


def assert_close(created: datetime, said: str) -> None:
    """A pod was created when it was to be; a busy machine may be late, and never early."""
    late = created - datetime.fromisoformat(said)
    assert timedelta(seconds=-3) <= late <= timedelta(seconds=stretched(3))


async def test_the_back_off_is_said_to_the_second_and_another_job_spares_the_second_one(
    world: World,
):
    pod = await running(world)
    hour = timedelta(hours=1)
    await Kubelet(world.cluster).end(pod, Exit.INTERRUPTED_SAVED, worked=hour)
    run = await world.until(
        RUN, lambda run: "creates the next pod at" in run.status.condition("Ready").message
    )
    said = run.status.condition("Ready").message.rpartition(" at ")[2].rstrip(".")
    second = await world.pod(RUN, seconds=40)
    created = datetime.fromisoformat(second["metadata"]["creationTimestamp"])
    assert_close(created, said)
    assert await world.jobs(RUN) == [0]

    await Kubelet(world.cluster).end(second, Exit.INTERRUPTED_SAVED, worked=hour)
    interrupted = datetime.now(UTC)
    await world.until(RUN, lambda run: run.status.resolved.job == 1)
    third = await world.pod(RUN, job=1)
    waited = datetime.fromisoformat(third["metadata"]["creationTimestamp"]) - interrupted
    assert waited < timedelta(seconds=10)  # the first Job would have waited for twenty
    assert await world.jobs(RUN) == [0, 1]
    again = await world.trainer(RUN, job=1, attempt=3)
    await again.succeed()
    await world.phase(RUN, "Succeeded")


async def test_the_back_off_doubles_and_neither_work_nor_suspension_resets_it(
    make_world: Callable[..., World],
):
    world = make_world(retries=5)
    pod = await running(world)
    for seconds, is_suspended in ((10, False), (20, True)):
        ended = datetime.now(UTC)
        await Kubelet(world.cluster).end(pod, Exit.TEMPORARY, worked=timedelta(hours=1))
        if is_suspended:
            await world.control(RUN, suspend=True)
            await world.phase(RUN, "Suspended")
            await world.control(RUN, suspend=False)
        run = await world.until(
            RUN, lambda run: "creates the next pod at" in run.status.condition("Ready").message
        )
        said = run.status.condition("Ready").message.rpartition(" at ")[2].rstrip(".")
        pod = await world.pod(RUN, seconds=40)
        created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
        assert_close(created, said)
        assert timedelta(seconds=-2) <= created - ended - timedelta(seconds=seconds)
    assert await world.jobs(RUN) == [0]


async def test_a_run_that_is_resumed_after_its_deadline_goes_on(world: World):
    """The Job controller compares the deadline with the first start before it resumes a Job."""
    pod = await running(world)
    await world.control(RUN, suspend=True)
    await world.pass_over(RUN)
    await Kubelet(world.cluster).end(pod, Exit.INTERRUPTED_SAVED)
    await world.cluster.delete("Pod", world.namespace, pod["metadata"]["name"], grace_seconds=0)
    await world.phase(RUN, "Suspended")
    job = await world.job(RUN)
    for _ in range(50):
        if find_condition(await world.job(RUN), "Suspended"):
            break
        await world.pass_over(RUN)
    old = {"startTime": "2026-01-01T00:00:00Z"}
    name = job["metadata"]["name"]
    await world.cluster.patch_status("Job", world.namespace, name, old)

    await world.control(RUN, suspend=False)
    await world.until(RUN, lambda run: run.status.resolved.job == 1)
    again = await world.trainer(RUN, job=1, attempt=2)
    await again.succeed()
    await world.phase(RUN, "Succeeded")
    assert find_condition(await world.job(RUN), "Failed") is None

    resumed = {"spec": {"suspend": False}}
    await world.cluster.patch("Job", world.namespace, name, resumed)
    for _ in range(100):
        failed = find_condition(await world.job(RUN), "FailureTarget")
        if failed:
            break
        await world.pass_over(RUN)
    assert failed["reason"] == "DeadlineExceeded"  # what resuming this Job would have come to


async def test_evictions_for_the_pods_own_limits_are_counted(make_world: Callable[..., World]):
    world = make_world(retries=0)
    pod = await running(world)
    words = {"message": "Pod ephemeral local storage usage exceeds the total limit of 64Ki."}
    kubelet = Kubelet(world.cluster)
    state = {"terminated": ended(143)["terminated"]}
    await kubelet.say(pod, "Failed", state, reason="Evicted", **words)
    run = await world.phase(RUN, "Failed")
    assert run.status.failure.reason == "Evicted"
    assert words["message"] in run.status.failure.message
    assert [attempt.reason for attempt in run.status.attempts] == ["Evicted"]
    assert await world.jobs(RUN) == []
