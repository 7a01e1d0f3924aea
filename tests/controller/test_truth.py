"""What people and pods wrote decides nothing: objects of a run that somebody else put there.

An editor of a namespace may write its ConfigMaps, Secrets, Jobs and pods. What the operator signs
and starts follows from the immutable spec, the platform's settings and the status. That other teams
are served meanwhile is in ``test_other_tenant``.
"""

import asyncio
import hashlib
import json
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.records import Ending, ResolvedRun
from flashrun.cluster_errors import NotFound
from flashrun.store import Store
from tests.controller.stage import Object, World, flash_run

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[Object]:
    """The policies of all credentials that the operator asks the store for."""
    policies: list[Object] = []
    assume = Store.assume

    def recording(self: Store, policy: Object, *words: Any) -> Any:
        policies.append(policy)
        return assume(self, policy, *words)

    monkeypatch.setattr(Store, "assume", recording)
    return policies


async def put_config_map(world: World, run: str, **changes: Any) -> Object:
    """Replace the ConfigMap of a run as an editor may, keeping its metadata."""
    found = await world.spec_config_map(run)
    spec = json.loads(found["data"][names.SPEC_KEY])
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels")}
    metadata["ownerReferences"] = found["metadata"]["ownerReferences"]
    await world.cluster.delete("ConfigMap", world.namespace, metadata["name"])
    forged = {**found, "metadata": metadata, "data": {names.SPEC_KEY: json.dumps(spec | changes)}}
    return await world.cluster.create(forged)


ADAPTER: Object = {"ref": "flash-0-x", "uid": "u", "prefix": ""}
FORGED = [
    ("an adapter anywhere", {"init_from_adapter": ADAPTER}),
    ("another team's adapter", {"init_from_adapter": ADAPTER | {"prefix": "runs/team-x/r/u/"}}),
    ("another model", {"model": {"id": "private/model", "source": "mirror", "revision": "v1"}}),
    ("another image", {"image": "tenant.example/own@sha256:2"}),
    ("no spec at all", {"environment": None}),
]


@pytest.mark.parametrize("forged", [row[1] for row in FORGED], ids=[row[0] for row in FORGED])
async def test_a_forged_config_map_widens_no_policy_and_is_replaced(
    world: World, signed: list[Object], forged: Object
):
    run = await world.submit(RUN)
    await world.launched(RUN)
    before, first = signed[-1], await world.spec_config_map(RUN)
    await put_config_map(world, RUN, **forged)
    secret = names.storage_secret_name(RUN, run.uid)
    await world.cluster.delete("Secret", world.namespace, secret)
    world.restart()
    for _ in range(3):
        await world.pass_over(RUN)
    assert signed[-1] == before
    assert len(signed) == 2
    assert (await world.spec_config_map(RUN))["data"] == first["data"]
    assert (await world.spec_config_map(RUN))["immutable"] is True
    await (await world.trainer(RUN)).succeed()
    await world.phase(RUN, "Succeeded")


async def test_a_forged_image_gets_into_no_job(world: World):
    """Also not into the Job that is made again when somebody deleted it."""
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    await put_config_map(world, RUN, image="tenant.example/own@sha256:2")
    await world.cluster.delete("Job", world.namespace, names.job_name(RUN, run.uid, 0))
    for _ in range(50):
        await world.pass_over(RUN)
        if (await world.run(RUN)).status.phase == "Starting" and await world.jobs(RUN) == [0]:
            break
        await asyncio.sleep(0.2)
    job = await world.job(RUN)
    pod = job["spec"]["template"]["spec"]
    images = {item["image"] for item in (*pod["initContainers"], *pod["containers"])}
    assert images == {world.platform.trainer.image}


async def test_a_pod_can_tell_the_spec_that_it_was_made_for(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    text = (await world.spec_config_map(RUN))["data"][names.SPEC_KEY]
    for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
        values = {item["name"]: item.get("value") for item in container["env"]}
        assert values["FLASHRUN_SPEC_DIGEST"] == hashlib.sha256(text.encode()).hexdigest()


async def test_a_job_that_somebody_else_made_is_not_the_runs(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    job = await world.job(RUN)
    forged = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job_name(RUN, run.uid, 50),
            "namespace": world.namespace,
            "labels": job["metadata"]["labels"] | {names.JOB_NUMBER_LABEL: "x"},
            "annotations": {names.POOL_ANNOTATION: "everything"},
            "ownerReferences": job["metadata"]["ownerReferences"],
        },
        "spec": {
            "suspend": True,
            "backoffLimit": 10**6,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "trainer", "image": "tenant.example/own"}],
                }
            },
        },
    }
    await world.cluster.create(forged)
    trainer.beat(3)
    seen = await world.phase(RUN, "Running")
    assert await world.jobs(RUN) == [0]
    assert seen.status.resolved is not None
    assert (seen.status.resolved.pool, seen.status.resolved.gpus) == ("small", 1)
    await trainer.succeed()
    await world.phase(RUN, "Succeeded")


async def test_limits_that_somebody_raised_are_set_back(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    await world.pod(RUN)
    await world.pass_over(RUN)
    before = (await world.job(RUN))["spec"]
    name = (await world.job(RUN))["metadata"]["name"]
    raised = {"activeDeadlineSeconds": None, "backoffLimit": 1000, "parallelism": 5}
    await world.cluster.patch("Job", world.namespace, name, {"spec": raised})
    await world.pass_over(RUN)
    after = (await world.job(RUN))["spec"]
    assert {key: after[key] for key in raised} == {key: before[key] for key in raised}


async def test_runs_whose_names_differ_by_a_number_both_train(world: World):
    for name in ("twin", "twin-1"):
        await world.submit(name)
        await world.phase(name, "Starting")
    large = await world.trainer("twin")
    await large.end(65)
    await world.until("twin", lambda run: run.status.resolved and run.status.resolved.job == 1)
    await (await world.trainer("twin-1")).succeed()
    await world.phase("twin-1", "Succeeded")
    await (await world.trainer("twin", job=1, attempt=2)).succeed()
    await world.phase("twin", "Succeeded")


async def test_a_run_that_is_created_again_reads_its_own_spec(world: World):
    """As `kubectl replace --force` does it, while a pod of the old run still ends."""
    old = await world.submit(RUN, train={"epochs": 1})
    await world.phase(RUN, "Starting")
    pod = await world.pod(RUN)
    before = await world.spec_config_map(RUN)
    await world.cluster.delete(names.KIND, world.namespace, RUN)
    new = await world.submit(RUN, train={"epochs": 7})
    await world.phase(RUN, "Starting")
    after = await world.spec_config_map(RUN)
    spec = ResolvedRun.model_validate_json(after["data"][names.SPEC_KEY])
    assert (spec.run.uid, spec.train.epochs) == (new.uid, 7)
    assert after["metadata"]["name"] != before["metadata"]["name"]
    job = await world.job(RUN)
    assert job["metadata"]["name"] != pod["metadata"]["labels"]["job-name"]
    name = names.storage_secret_name(RUN, new.uid)
    assert name != names.storage_secret_name(RUN, old.uid)
    secret = await world.cluster.get("Secret", world.namespace, name)
    assert secret["metadata"]["ownerReferences"][0]["uid"] == new.uid
    await (await world.trainer(RUN)).succeed()
    await world.phase(RUN, "Succeeded")


async def test_a_run_that_is_deleted_and_held_by_a_finalizer_trains_no_more(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    held = {"metadata": {"finalizers": ["tenant.example/held"]}}
    await world.cluster.patch(names.KIND, world.namespace, RUN, held)
    await world.cluster.delete(names.KIND, world.namespace, RUN)
    assert (await world.run(RUN)).deleting
    await world.pass_over(RUN)
    assert await world.jobs(RUN) == []
    key = names.ending_key(world.namespace, RUN, run.uid)
    assert world.store.get_json(key, Ending).reason == "Deleted"
    free = {"metadata": {"finalizers": None}}
    await world.cluster.patch(names.KIND, world.namespace, RUN, free)


async def test_a_status_that_somebody_brings_along_is_not_kept(world: World):
    """The API server drops it: else a tenant could choose image, pool and adapter."""
    status = {"phase": "Running", "resolved": {"image": "tenant.example/own", "pool": "large"}}
    await world.cluster.create({**flash_run(world.namespace, RUN), "status": status})
    assert (await world.run(RUN)).status.resolved is None
    run = await world.phase(RUN, "Starting")
    await world.cluster.patch(names.KIND, world.namespace, RUN, {"status": status})
    assert (await world.run(RUN)).status == run.status


async def test_a_secret_in_the_place_of_a_runs_own_is_named_in_its_status(world: World):
    await world.cluster.create(flash_run(world.namespace, RUN))
    run = await world.run(RUN)
    name = names.storage_secret_name(RUN, run.uid)
    metadata = {"name": name, "namespace": world.namespace}
    await world.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    run = await world.until(RUN, lambda run: run.status.pending)
    assert run.status.pending.reason == "ClusterRefuses"
    assert f"kubectl delete secret {name}" in run.status.pending.message
    with pytest.raises(NotFound):
        await world.job(RUN)
    await world.cluster.delete("Secret", world.namespace, name)
    await world.phase(RUN, "Starting")
