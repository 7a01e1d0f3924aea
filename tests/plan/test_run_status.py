"""The status of a run: what a pass has observed of it, and what is carried over."""

import pytest

from flashrun.api.reasons import Phase
from flashrun.api.records import AdaptedLayers, Batching, Heartbeat
from flashrun.api.resource import AdaptedLayersStatus, BatchingStatus, ConditionStatus
from flashrun.api.trainer_choices import RoutedExperts
from flashrun.plan.types import StorageView
from tests.plan import worlds
from tests.plan.worlds import checkpoint, running


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


def test_status_stays_as_it_was_when_storage_cannot_be_read() -> None:
    world = running(checkpoints=(checkpoint(5),))

    status = world.seeing(storage=StorageView(problem="S3 is away.")).decide().status

    assert status.phase is Phase.RUNNING
    assert status.checkpoint_count == 1
    synced = status.condition("CheckpointsSynced")
    assert synced is not None
    assert (synced.status, synced.message) == (ConditionStatus.FALSE, "S3 is away.")


def test_batching_is_shown_once_the_trainer_has_reported_it_and_stays() -> None:
    reporting = worlds.heartbeat(
        10, batching=Batching(world_size=4, micro_batch_size=2, gradient_accumulation_steps=4)
    )
    world = worlds.on_two_nodes(heartbeat=reporting)
    after = world.stored(heartbeat=None).settled()

    for current in (world, after):
        assert current.run.status.resolved is not None
        assert current.run.status.resolved.batching == BatchingStatus(
            world_size=4, micro_batch_size=2, gradient_accumulation_steps=4
        )


@pytest.mark.parametrize("heartbeat", [None, worlds.heartbeat(0)], ids=["none", "an early one"])
def test_batching_of_a_run_that_ended_between_two_passes_comes_from_its_result(
    heartbeat: Heartbeat | None,
) -> None:
    cut = Batching(world_size=4, micro_batch_size=2, gradient_accumulation_steps=4)
    ended = worlds.result().model_copy(update={"batching": cut})
    status = worlds.on_two_nodes().stored(heartbeat=heartbeat, result=ended).decide().status

    assert status.resolved is not None
    assert status.resolved.batching == BatchingStatus(
        world_size=4, micro_batch_size=2, gradient_accumulation_steps=4
    )


def test_adapted_layers_are_shown_once_the_trainer_has_reported_them_and_stay() -> None:
    adapted = AdaptedLayers(layers=("q_proj",), percent=33, routed_experts=RoutedExperts.FROZEN)
    world = worlds.on_two_nodes(heartbeat=worlds.heartbeat(10, adapted=adapted))
    after = world.stored(heartbeat=None).settled()

    for current in (world, after):
        assert current.run.status.resolved is not None
        assert current.run.status.resolved.adapted == AdaptedLayersStatus(
            layers=("q_proj",), percent=33, routed_experts=RoutedExperts.FROZEN
        )


def test_batching_of_an_earlier_scale_is_forgotten() -> None:
    reporting = worlds.heartbeat(
        10, batching=Batching(world_size=8, micro_batch_size=1, gradient_accumulation_steps=4)
    )
    status = worlds.on_two_nodes(heartbeat=reporting).run.status

    assert status.resolved is not None
    assert status.resolved.batching is None
