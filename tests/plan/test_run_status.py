"""Status: what is observed of a run, what is carried over, and when it is written."""

from datetime import timedelta

import pytest

from flashrun.api.reasons import Phase
from flashrun.api.records import Batching, Heartbeat
from flashrun.api.resource import BatchingStatus, ConditionStatus
from flashrun.plan.types import StorageView
from tests.plan import worlds
from tests.plan.worlds import LEADER, World, checkpoint, make_pod, make_run, member, running

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


def test_an_attempt_says_where_it_resumed_and_where_it_got() -> None:
    first = make_pod("pod-0", exit_code=40, termination=worlds.termination(), number=0)
    world = running(
        checkpoints=(checkpoint(5),), claims=(worlds.claim("pod-0", 1), worlds.claim("pod-1", 2))
    ).seeing(pods=(first, make_pod("pod-1", age=timedelta(seconds=5))))

    [ended, active] = world.decide().status.attempts
    assert (ended.number, ended.from_step, ended.to_step, ended.exit_code) == (1, 0, 7, 40)
    assert (active.number, active.from_step, active.to_step) == (2, 5, None)


def test_progress_alone_is_not_written_more_often_than_every_five_seconds() -> None:
    world = running()
    soon = world.later(seconds=2).stored(heartbeat=worlds.heartbeat(12)).decide()
    later = world.later(seconds=6).stored(heartbeat=worlds.heartbeat(12)).decide()

    assert soon.status == world.run.status
    assert soon.requeue_seconds == 3
    assert later.status.progress is not None
    assert later.status.progress.step == 12


def test_each_event_is_told_once() -> None:
    world = running()
    decision = world.stored(checkpoints=(checkpoint(10),)).decide()
    after = world.stored(checkpoints=(checkpoint(10),)).act(decision)

    assert [event.reason for event in decision.events] == ["CheckpointUploaded"]
    assert after.decide().events == ()


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


def test_gpu_time_counts_every_gpu_of_every_node() -> None:
    ended = (make_pod(index=0, exit_code=40, age=timedelta(minutes=2)), member(exit_code=41))
    world = worlds.on_two_nodes(*ended)

    assert world.run.status.attempts[0].gpus == 4
    assert world.run.status.gpu_seconds == 4 * 120
