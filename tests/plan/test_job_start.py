"""Starting a Job: secrets, access to storage, and what is pinned for the trainer."""

from datetime import timedelta

from flashrun.api.records import Scale
from tests.plan import worlds
from tests.plan.worlds import World, make_run, running


def test_the_wandb_key_is_copied_only_when_it_exists() -> None:
    run = make_run({"secret_refs": [{"name": "x-env"}]})
    without_key = World(run).decide()
    with_key = World(run).seeing(secrets=worlds.lookup(WANDB_API_KEY="x-env")).decide()

    assert without_key.secrets is not None
    assert with_key.secrets is not None
    assert without_key.secrets.sources == {}
    assert with_key.secrets.sources == {"WANDB_API_KEY": "x-env"}


def test_access_is_renewed_at_half_life() -> None:
    world = running()

    assert world.later(hours=5).decide().access is None
    assert world.later(hours=7).decide().access is not None


def test_an_annotation_can_only_bring_the_renewal_forward() -> None:
    world = running().later(hours=7)
    tomorrow, later = world.now + timedelta(hours=11), world.now + timedelta(days=4000)

    for annotated in (tomorrow, later, None):
        assert world.seeing(access_expires=annotated).decide().access is not None
    early = running()
    assert early.seeing(access_expires=early.now).decide().access is not None


def test_rank_and_alpha_of_a_warm_start_come_from_the_adapter() -> None:
    run = make_run({"train": {"init_from_adapter": "flash-1-aa/step-20"}})
    world = World(run).stored(adapter_source=worlds.source_adapter()).settled()

    assert world.pinned is not None
    train = world.pinned.train
    assert (train.lora_rank, train.lora_alpha) == (16, 32)
    assert world.run.status.resolved is not None
    assert world.run.status.resolved.init_from_adapter_uid == "old"


def test_the_trainer_reads_the_scale_that_its_pods_have() -> None:
    settled = World(make_run({"model": worlds.WIDE}), platform=worlds.NODES).settled()

    assert settled.pinned is not None
    assert settled.pinned.scale == Scale(nodes=2, gpus=2, sharded=True)
