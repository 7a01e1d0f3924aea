"""Why a Job has no pod and why a pod does not start, in the words of the program that knows.

The Job controller and the API server's admission are real; the tests take the part of scheduler,
autoscaler and kubelet.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from flashrun.api.resource import FlashRun
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Forbidden
from tests.controller.stage import Kubelet, Object, World

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"


def quota(**hard: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "team"},
        "spec": {"hard": {name.replace("_", "."): amount for name, amount in hard.items()}},
    }


def limit_range() -> Object:
    limit = {"type": "Container", "max": {"memory": "1Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "team"},
        "spec": {"limits": [limit]},
    }


REFUSALS = [
    ("a quota that is used up", quota(pods="0"), "exceeded quota: team"),
    ("a quota on what no container names", quota(limits_cpu="64"), "must specify limits.cpu"),
    ("a range of sizes", limit_range(), "maximum memory usage per Container is 1Mi"),
]


@pytest.mark.parametrize(
    ("manifest", "sentence"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
async def test_a_pod_that_the_api_server_refuses_is_in_the_status_and_waited_for(
    world: World, manifest: Object, sentence: str
):
    await world.kubectl("create", "-f", "-", stdin=manifest)
    await quota_is_known(world, manifest)
    await world.submit(RUN)
    run = await world.until(RUN, lambda run: sentence in message_of(run))
    assert run.status.pending.reason == "ClusterRefuses"
    assert run.status.pending.message == message_of(run)
    assert message_of(run).startswith("The Job controller cannot create a pod: pods ")
    assert (run.status.phase, run.status.condition("Ready").status) == ("Pending", "False")

    await world.kubectl("delete", manifest["kind"].lower(), "team")
    begin = time.monotonic()
    await world.pod(RUN, seconds=90)  # nobody does anything: the Job controller tries again
    assert time.monotonic() - begin < 65
    run = await world.until(RUN, lambda run: run.status.pending is None)
    assert run.status.condition("Ready").reason == "Starting"


async def test_a_pod_that_pod_security_refuses_is_in_the_status_and_waited_for(
    make_world: Callable[..., World],
):
    """An annotation of the chart's values asks for what only the privileged level allows."""
    profile = {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}
    world = make_world(annotations=profile)
    level = "pod-security.kubernetes.io/enforce"
    await world.kubectl("label", "namespace", world.namespace, f"{level}=baseline")
    await world.submit(RUN)
    run = await world.until(RUN, lambda run: "violates PodSecurity" in message_of(run))
    assert run.status.pending.reason == "ClusterRefuses"
    assert message_of(run).startswith("The Job controller cannot create a pod: pods ")
    assert 'violates PodSecurity "baseline:latest": ' in message_of(run)
    assert (run.status.phase, run.status.condition("Ready").status) == ("Pending", "False")

    await world.kubectl("label", "namespace", world.namespace, f"{level}-")
    await world.pod(RUN, seconds=90)
    run = await world.until(RUN, lambda run: run.status.pending is None)
    assert run.status.condition("Ready").reason == "Starting"


async def quota_is_known(world: World, manifest: Object) -> None:
    """Wait until the controllers have counted what a quota limits."""
    while manifest["kind"] == "ResourceQuota":
        found = await world.cluster.get("ResourceQuota", world.namespace, "team")
        if (found.get("status") or {}).get("hard"):
            return
        await asyncio.sleep(0.1)


def message_of(run: FlashRun) -> str:
    return run.status.condition("Ready").message


async def say(world: World, pod: Object, source: str, reason: str, words: str, kind: str) -> None:
    """Write an Event about a pod, as ``source`` does."""
    subject = {"kind": "Pod", "namespace": world.namespace}
    subject |= {key: pod["metadata"][key] for key in ("name", "uid")}
    await world.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "said-", "namespace": world.namespace},
            "involvedObject": subject,
            "reason": reason,
            "message": words,
            "type": kind,
            "source": {"component": source},
        }
    )


async def test_the_autoscalers_words_follow_the_schedulers(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    condition |= {"message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}
    status = {"conditions": [condition]}
    await world.cluster.patch_status("Pod", world.namespace, pod["metadata"]["name"], status)
    words = "pod didn't trigger scale-up: 1 max node group size reached"
    await say(world, pod, "cluster-autoscaler", "NotTriggerScaleUp", words, "Normal")
    await world.pass_over(RUN)
    run = await world.run(RUN)
    assert message_of(run) == f"No node fits: {condition['message']} cluster-autoscaler: {words}"
    assert run.status.pending.reason == "Unschedulable"


async def test_the_wall_clock_limit_begins_with_the_first_pod_on_a_node(world: World):
    limit = world.platform.trainer.wall_clock_seconds
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)

    async def deadline() -> int:
        await world.pass_over(RUN)
        seconds: int = (await world.job(RUN))["spec"]["activeDeadlineSeconds"]
        return seconds

    assert limit < await deadline() <= limit + 60, "most pods begin within seconds"
    world.ahead = timedelta(minutes=1)
    waiting = await deadline()
    assert waiting >= limit + 6 * 3600
    assert await deadline() == waiting
    world.ahead = timedelta(0)
    await world.bind(pod, "node-1")
    await Kubelet(world.cluster).start(await world.pod(RUN))
    assert limit <= await deadline() <= limit + 600


async def test_a_volume_that_cannot_be_mounted_is_in_the_status(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    await world.bind(pod, "node-1")
    words = 'MountVolume.SetUp failed for volume "ca": configmap "team-ca" not found'
    await say(world, pod, "kubelet", "FailedMount", words, "Warning")
    await world.pass_over(RUN)
    run = await world.run(RUN)
    assert message_of(run) == f"The pod cannot start: {words}"
    assert run.status.pending.reason == "FailedMount"
    await Kubelet(world.cluster).start(await world.pod(RUN))
    await world.phase(RUN, "Running")


async def test_a_node_that_pulls_the_image_is_in_the_status(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    await world.bind(pod, "node-1")
    await say(world, pod, "kubelet", "Pulling", "Pulling image", "Normal")
    await world.pass_over(RUN)
    status = (await world.run(RUN)).status
    assert (status.phase, status.progress.activity) == ("Starting", "Pulling image")
    assert status.condition("Ready").reason == "PullingImage"
    assert status.pending is None
    await Kubelet(world.cluster).start(await world.pod(RUN))
    assert (await world.phase(RUN, "Running")).status.progress.activity == "Loading"


async def test_a_pod_that_runs_is_not_asked_about_and_events_decide_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """An operator without the right to list Events does all of its work."""
    asked = []
    listing = Cluster.newest

    async def refusing(self, kind, *words, **fields):
        if kind == "Event":
            asked.append(fields)
            raise Forbidden("you may not list events")
        return await listing(self, kind, *words, **fields)

    monkeypatch.setattr(Cluster, "newest", refusing)
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    await world.pod(RUN)
    await world.pass_over(RUN)
    assert asked
    trainer = await world.trainer(RUN)
    await world.phase(RUN, "Running")
    asked.clear()
    await world.pass_over(RUN)
    assert asked == []
    await trainer.succeed()
    await world.phase(RUN, "Succeeded")
