"""Launching a Job: what is created with it, and what a vanished Job leads to."""

from dataclasses import replace

from flashrun.api.reasons import ConditionType, Phase
from flashrun.api.records import Scale
from flashrun.plan.decisions import RECHECK_SECONDS
from tests.plan import worlds
from tests.plan.worlds import (
    World,
    make_run,
    running,
)

WITH_SECRETS = {"environment": {"id": "examples/sums", "secrets": ["SERVICE_API_KEY"]}}
KEYS = worlds.lookup(SERVICE_API_KEY="x-env")


def test_a_first_pass_creates_everything_a_pod_needs_before_the_job() -> None:
    decision = World(make_run(WITH_SECRETS)).seeing(secrets=KEYS).decide()

    assert decision.status.phase is Phase.STARTING
    assert decision.secrets is not None
    assert decision.access is not None
    assert [manifest["kind"] for manifest in decision.apply] == ["ConfigMap", "Job"]


def test_a_run_that_names_no_secrets_gets_no_secret_for_them() -> None:
    decision = World(make_run()).decide()

    assert decision.secrets is None
    assert decision.status.condition(ConditionType.SECRETS_READY).status == "True"
    [trainer] = decision.apply[-1]["spec"]["template"]["spec"]["containers"]
    assert "envFrom" not in trainer


def test_every_object_belongs_to_the_run() -> None:
    decision = World(make_run(WITH_SECRETS)).seeing(secrets=KEYS).decide()
    assert decision.secrets is not None
    assert decision.access is not None
    made = [manifest["metadata"] for manifest in decision.apply]

    for metadata in (*made, decision.secrets.metadata, decision.access.metadata):
        [owner] = metadata["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (worlds.UID, True)


def test_a_name_that_a_finalizer_holds_is_waited_for_with_patience() -> None:
    world = World(make_run()).settled()
    forged = {**(world.observed.config_map or {}), "data": {}}
    world = world.seeing(jobs=(), config_map=forged)
    first = world.decide()
    assert [item.kind for item in first.delete] == ["ConfigMap"]

    held = {"deletionTimestamp": "2026-11-22T12:00:00Z", "finalizers": ["tenant.example/held"]}
    forged["metadata"] = forged["metadata"] | held
    decision = world.seeing(config_map=forged).decide()
    assert (decision.delete, decision.apply) == ((), ())
    assert decision.requeue_seconds == RECHECK_SECONDS
    assert decision.status.pending is not None
    assert decision.status.pending.reason == "ClusterRefuses"
    assert "finalizers: tenant.example/held" in decision.status.pending.message


def test_a_run_on_two_nodes_gets_a_service_before_its_job() -> None:
    world = World(make_run({"model": worlds.WIDE}), platform=worlds.NODES)
    decision = world.decide()

    assert [manifest["kind"] for manifest in decision.apply] == ["ConfigMap", "Service", "Job"]
    assert decision.status.resolved is not None
    assert (decision.status.resolved.gpus, decision.status.resolved.nodes) == (4, 2)
    assert decision.status.resolved.sharded


def test_a_deleted_job_of_an_active_run_is_created_again() -> None:
    decision = running().seeing(jobs=(), pods=()).decide()

    assert [manifest["kind"] for manifest in decision.apply] == ["Job"]


def test_a_deleted_job_is_created_again_with_the_same_scale() -> None:
    world = worlds.on_two_nodes().seeing(jobs=(), pods=())
    wider = worlds.NODES.pools[0].model_copy(update={"gpus_per_node": 8, "max_nodes": 4})
    changed = replace(world, platform=worlds.NODES.model_copy(update={"pools": (wider,)}))

    for place in (world, changed):
        [job] = place.decide().apply
        assert worlds.job_scale(job) == Scale(nodes=2, gpus=2, sharded=True)


def test_a_run_fails_when_no_pool_has_its_scale_any_more() -> None:
    world = worlds.on_two_nodes().seeing(jobs=(), pods=())
    narrow = worlds.NODES.pools[0].model_copy(update={"max_nodes": 1})
    status = replace(world, platform=worlds.NODES.model_copy(update={"pools": (narrow,)})).decide()

    assert status.status.failure is not None
    assert status.status.failure.reason == "NoPool"
