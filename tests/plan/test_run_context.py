"""Everything one pass knows about a run: its newest Job, its pods, its placement, its life."""

from dataclasses import replace
from datetime import timedelta

from flashrun.api import names
from flashrun.api.records import Scale
from flashrun.plan.types import StorageView
from tests.plan import worlds
from tests.plan.worlds import World, make_pod, make_run, running


def test_the_newest_job_is_the_one_that_counts() -> None:
    world = running()
    [first] = world.observed.jobs
    labels = {**first["metadata"]["labels"], names.JOB_NUMBER_LABEL: "10"}
    tenth = {**first, "metadata": {**first["metadata"], "labels": labels}}

    assert world.seeing(jobs=(tenth, first)).context().job == tenth
    assert world.seeing(jobs=()).context().job is None


def test_current_pods_are_the_newest_of_each_index_of_the_newest_job() -> None:
    minute = timedelta(minutes=1)
    pods = (
        make_pod("old", index=0, age=9 * minute, exit_code=65),
        make_pod("leader", index=0, number=1, age=4 * minute, exit_code=75),
        make_pod("member", index=1, number=1, age=4 * minute),
        make_pod("leader-again", index=0, number=1, age=minute),
    )
    context = worlds.on_two_nodes().seeing(pods=pods).context()

    assert [pod.name for pod in context.current_pods] == ["leader-again", "member"]
    assert context.active


def test_a_run_without_pods_is_not_active() -> None:
    context = World(make_run()).context()

    assert context.current_pods == ()
    assert not context.active


def test_a_run_that_has_begun_keeps_its_scale_and_its_training_values() -> None:
    world = worlds.on_two_nodes()
    wider = worlds.NODES.pools[0].model_copy(update={"gpus_per_node": 8, "max_nodes": 4})
    changed = replace(world, platform=worlds.NODES.model_copy(update={"pools": (wider,)}))

    for context in (world.context(), changed.context()):
        placement = context.find_placement()
        assert placement is not None
        assert placement.scale == Scale(nodes=2, gpus=2, sharded=True)
        assert world.pinned is not None
        assert context.train == world.pinned.train


def test_rank_and_alpha_of_the_training_values_come_from_the_adapter() -> None:
    run = make_run({"train": {"init_from_adapter": "flash-1-aa/step-20"}})
    context = World(run).stored(adapter_source=worlds.source_adapter(lora_rank=8)).context()

    assert context.train.lora_rank == 8


def test_a_model_that_the_catalog_lacks_has_no_placement() -> None:
    assert World(make_run({"model": "Qwen/Qwen3.5-5B"})).context().find_placement() is None


def test_a_pod_is_silent_for_as_long_as_the_operator_received_nothing() -> None:
    world = running().later(hours=1)

    silence = world.context().silence(world.context().pods[0])
    assert silence == timedelta(hours=1)
    unknown = replace(world.context(), observed=replace(world.observed, silent_seconds={}))
    assert unknown.silence(unknown.pods[0]) == timedelta(0)


def test_a_pod_counts_as_alive_while_storage_cannot_be_read() -> None:
    world = running().later(hours=1).seeing(storage=StorageView(problem="S3 is away."))
    context = world.context()

    assert context.silence(context.pods[0]) == timedelta(0)
