"""How runs end, and that they stay ended by the operator's own record."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit, Termination
from flashrun.api.records import Ending
from flashrun.api.resource import FlashRun
from flashrun.cli.output import formatting
from flashrun.cluster_errors import ClusterError
from flashrun.controller.pass_errors import explain_error
from flashrun.controller.watch import Watch
from flashrun.store import Store
from flashrun.store_errors import StorageForbidden, Unavailable
from tests.controller.stage import World
from tests.servers import kubectl

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"
RAISED = Termination(reason="RewardFailed", message="The reward raised.", hint="Correct it.")


def ending_of(world: World, name: str, uid: str) -> Ending:
    return world.store.get_json(names.ending_key(world.namespace, name, uid), Ending)


async def restore(world: World, name: str, status: dict[str, Any] | None = None) -> None:
    """Bring the run back as a backup of etcd does: the same uid, an older status, no Job."""
    for job in await world.cluster.list("Job", world.namespace, {names.RUN_LABEL: name}):
        await world.cluster.delete("Job", world.namespace, job["metadata"]["name"])
    run = await world.cluster.get(names.KIND, world.namespace, name)
    older = dict.fromkeys(run["status"]) | (status or {})
    await world.cluster.patch_status(names.KIND, world.namespace, name, older)
    world.restart()


async def failed_without_a_result(world: World) -> str:
    await (await world.trainer(RUN)).end(Exit.DATA)
    return "Failed"


async def failed_with_a_result(world: World) -> str:
    trainer = await world.trainer(RUN)
    trainer.conclude(Exit.ENVIRONMENT, RAISED)
    await trainer.end(Exit.ENVIRONMENT)
    return "Failed"


async def succeeded(world: World) -> str:
    await (await world.trainer(RUN)).succeed()
    return "Succeeded"


@pytest.mark.parametrize("end", [failed_without_a_result, failed_with_a_result, succeeded])
@pytest.mark.parametrize("older", [True, False], ids=["older status", "no status"])
async def test_a_run_of_a_restored_backup_ends_as_before_and_starts_no_pod(
    world: World, end: Callable[[World], Any], older: bool
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    backup = (await world.cluster.get(names.KIND, world.namespace, RUN))["status"]
    phase = await end(world)
    before = await world.phase(RUN, phase)

    await restore(world, RUN, backup if older else None)
    await world.pass_over(RUN)
    after = await world.run(RUN)
    assert after.status.phase == phase
    assert after.status.failure == before.status.failure
    assert after.status.completion_time == before.status.completion_time
    await world.pass_over(RUN)
    assert await world.jobs(RUN) == []


async def test_a_cancelled_run_of_a_backup_from_before_is_cancelled_again(world: World):
    """The record is that of a run which was cancelled; the API server takes no cancel back."""
    other = await world.submit("flash-1-cancelled")
    await world.phase(other.name, "Starting")
    await world.control(other.name, cancel=True)
    await world.phase(other.name, "Cancelled")
    ending = ending_of(world, other.name, other.uid)

    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3)
    await world.phase(RUN, "Running")
    key = names.ending_key(world.namespace, RUN, run.uid)
    world.store.create_json(key, ending.replace(run=trainer.identity))
    await restore(world, RUN)
    run = await world.phase(RUN, "Cancelled")
    assert run.status.condition("Ready").reason == "Cancelled"
    await world.pass_over(RUN)
    assert await world.jobs(RUN) == []


async def test_a_refused_spec_is_recorded(world: World):
    run = await world.submit(RUN, model="nobody/knows-it")
    await world.phase(RUN, "Failed")
    assert ending_of(world, RUN, run.uid).reason == "SpecInvalid"


async def test_a_run_that_is_deleted_while_no_operator_runs_is_recorded_as_deleted(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3, updated=datetime.now(UTC) - timedelta(hours=1))
    await world.cluster.delete(names.KIND, world.namespace, RUN)

    world.restart()
    world.heartbeats.poll()
    record = world.reconciler.record_missed_deletion
    for _ in range(2):
        world.heartbeats.delete_orphans(set(), (world.namespace,), record)

    ending = ending_of(world, RUN, run.uid)
    assert (ending.phase, ending.reason) == ("Cancelled", "Deleted")
    assert not world.store.exists(names.heartbeat_key(run.uid))


async def test_a_deleted_run_that_comes_back_does_not_train(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    connection = await world.cluster.connection()
    watch = Watch(
        lambda: (world.namespace,),
        lambda: connection,
        lambda *_: None,
        world.reconciler.record_deletion,
    )
    watch.start()
    try:
        await asyncio.sleep(3)  # it has to see the run before the run goes
        await world.cluster.delete(names.KIND, world.namespace, RUN)
        key = names.ending_key(world.namespace, RUN, run.uid)
        for _ in range(100):
            if world.store.exists(key):
                break
            await asyncio.sleep(0.1)
    finally:
        watch.stop()
    ending = ending_of(world, RUN, run.uid)
    assert (ending.phase, ending.reason) == ("Cancelled", "Deleted")

    again = await world.submit(RUN)  # a person who submits it again means it
    assert again.uid != run.uid
    await world.phase(RUN, "Starting")
    key = names.ending_key(world.namespace, RUN, again.uid)
    moved = ending.replace(run=ending.run.model_copy(update={"uid": again.uid}))
    world.store.create_json(key, moved)
    await restore(world, RUN)
    run = await world.phase(RUN, "Cancelled")
    assert run.status.condition("Ready").reason == "Deleted"
    await world.pass_over(RUN)
    assert await world.jobs(RUN) == []


async def test_the_keys_of_a_run_reach_no_record_of_an_end(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    key = names.ending_key(world.namespace, RUN, run.uid)
    world.store.put_bytes(key, b"{}")
    for use in (
        lambda: trainer.store.put_bytes(key, b"{}"),
        lambda: trainer.store.delete([key]),
        lambda: trainer.store.get_bytes(key),
    ):
        with pytest.raises(StorageForbidden):
            use()


async def test_a_run_ends_when_storage_has_the_record_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.publish()
    trainer.conclude(0)
    await trainer.end(0)
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise Unavailable("storage does not answer")

        patch.setattr(Store, "create_json", refuse)
        run = await world.until(RUN, lambda run: run.status.pending)
        assert run.status.phase == "Starting"
        assert run.status.pending.reason == "StorageUnavailable"
        assert "storage does not answer" in run.status.pending.message
    run = await world.phase(RUN, "Succeeded")
    assert ending_of(world, RUN, run.uid).phase == "Succeeded"


async def test_a_result_that_comes_early_ends_the_pod_and_every_gpu_second_counts(
    make_world: Callable[..., World],
):
    world = make_world(upload_timeout_seconds=60, grace_seconds=90)
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.claim()
    trainer.publish()
    trainer.conclude(0)
    run = await world.until(RUN, lambda run: run.status.result_time)
    await world.pass_over(RUN)
    assert (await world.run(RUN)).status.phase == "Running"
    assert await world.jobs(RUN) == [0]

    world.ahead = timedelta(seconds=120)
    await world.pass_over(RUN)
    assert await world.jobs(RUN) == []
    run = await world.phase(RUN, "Succeeded")
    assert run.status.gpu_seconds >= 120
    assert run.status.attempts[0].end is not None


# --- deleted, and held by a finalizer of another program ------------------------------------------

HOLDER = "example.com/backup"


async def held(world: World) -> FlashRun:
    """A run in training that was deleted and that another program holds."""
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3)
    await world.phase(RUN, "Running")
    body = {"metadata": {"finalizers": [HOLDER]}}
    await world.cluster.patch(names.KIND, world.namespace, RUN, body)
    await world.cluster.delete(names.KIND, world.namespace, RUN)
    return await world.run(RUN)


REFUSALS = [
    ("storage that is away", Unavailable("s3 does not answer")),
    ("a refused write", StorageForbidden("403: the bucket is read-only")),
    ("an error of the operator", ValueError("s3cret")),
]


@pytest.mark.parametrize("error", [row[1] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
async def test_an_error_in_the_deletion_of_a_held_run_is_shown_and_heals(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    uid = (await held(world)).uid
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise error

        patch.setattr(Store, "create_json", refuse)
        for _ in range(2):
            with pytest.raises(type(error)):
                await world.pass_over(RUN)
    run = await world.run(RUN)
    reason, sentence = explain_error(error)
    assert (run.status.phase, run.status.pending.reason) == ("Cancelling", reason)
    assert sentence.rstrip(".")[:40] in run.status.pending.message
    assert HOLDER in run.status.pending.message
    assert "s3cret" not in str(run.status)
    shown = dict(formatting.summary(run, datetime.now(UTC)))
    assert shown["Waiting"].startswith("The deletion of the run is not finished")
    described = kubectl(world.kubeconfig, "-n", world.namespace, "describe", "flashrun", RUN)
    assert "The deletion of the run is not finished" in described

    run = await world.phase(RUN, "Cancelled")
    assert await world.jobs(RUN) == []
    assert ending_of(world, RUN, uid).reason == "Deleted"
    assert run.status.pending is None
    shown = dict(formatting.summary(run, datetime.now(UTC)))
    assert shown["Deletion"].endswith(f"until other programs remove their finalizer {HOLDER}.")
    assert world.known.read() == ()
    version = (await world.cluster.get(names.KIND, world.namespace, RUN))["metadata"]
    assert await world.pass_over(RUN) is None
    again = (await world.cluster.get(names.KIND, world.namespace, RUN))["metadata"]
    assert again["resourceVersion"] == version["resourceVersion"]

    await world.cluster.patch(names.KIND, world.namespace, RUN, {"metadata": {"finalizers": None}})
    assert await world.cluster.find(names.KIND, world.namespace, RUN) is None
    assert await world.pass_over(RUN) is None


async def test_a_held_run_that_cannot_be_read_ends_too(world: World):
    uid = (await held(world)).uid
    unreadable = {"phase": "Unheard"}
    with contextlib.suppress(ClusterError):  # where the definition lists phases
        await world.cluster.patch_status(names.KIND, world.namespace, RUN, unreadable)
    await world.pass_over(RUN)
    assert ending_of(world, RUN, uid).reason == "Deleted"
    assert await world.jobs(RUN) == []
    await world.cluster.patch(names.KIND, world.namespace, RUN, {"metadata": {"finalizers": None}})
