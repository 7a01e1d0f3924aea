"""Runs that storage remembers: a deletion that nobody watched is missed by the next operator."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from flashrun.api import names
from flashrun.api.records import Ending, RunIdentity
from flashrun.controller.known_runs import KnownRuns
from flashrun.controller.observe import NEW_SECONDS
from flashrun.store import Store
from flashrun.store_errors import StorageForbidden, Unavailable
from tests.controller.conftest import Operators
from tests.controller.stage import World, wait_for_phase

pytestmark = pytest.mark.api
RUN, OTHER, WAITING = "flash-1-0a1b2c3d", "flash-2-0a1b2c3d", "flash-3-0a1b2c3d"
IDENTITY = RunIdentity(namespace="team", name=RUN, uid="uid-1")


def ending_key(world: World, run: RunIdentity) -> str:
    return names.ending_key(world.namespace, run.name, run.uid)


async def resync(world: World) -> None:
    """Do what the resync of a new operator process does."""
    known = world.known.read()
    runs = await world.cluster.list(names.KIND, world.namespace)
    uids = {run["metadata"]["uid"] for run in runs}
    world.reconciler.record_missed_deletions(known, uids, (world.namespace,))


async def test_a_run_without_a_heartbeat_that_is_deleted_while_nobody_watches_does_not_come_back(
    operators: Operators, world: World
):
    """The record of the deletion is written by the first resync of the next process."""
    process = operators.start()
    not_pushed = {"environment": {"id": "org/not-pushed"}}
    started, waiting = await world.submit(RUN), await world.submit(WAITING, **not_pushed)
    other = await world.submit(OTHER)
    await wait_for_phase(world, WAITING, "Pending")
    for name in (RUN, OTHER):
        await wait_for_phase(world, name, "Starting")
    process.kill()
    process.wait()
    for name in (RUN, WAITING):
        await world.cluster.delete(names.KIND, world.namespace, name)
    operators.release()

    process = operators.start()
    for run in (started, waiting):
        key = names.ending_key(world.namespace, run.name, run.uid)
        operators.wait(lambda key=key: world.store.exists(key))
        ending = world.store.get_json(key, Ending)
        assert (ending.phase, ending.reason) == ("Cancelled", "Deleted")
    operators.wait(lambda: remembered(world) == {other.uid})

    # A backup brings a run with such a record back: here one that exists and has no Job.
    # An operator looks for the record when it first sees a run that was not created a moment ago.
    process.kill()
    process.wait()
    operators.release()
    again = await world.submit("flash-4-0a1b2c3d", **not_pushed)
    moved = ending.replace(run=ending.run.replace(name=again.name, uid=again.uid))
    world.store.create_json(names.ending_key(world.namespace, again.name, again.uid), moved)
    await asyncio.sleep(NEW_SECONDS + 1)
    operators.start()
    await wait_for_phase(world, again.name, "Cancelled")
    assert await world.jobs(again.name) == []
    await (await world.trainer(OTHER)).succeed()
    await wait_for_phase(world, OTHER, "Succeeded")


def remembered(world: World) -> set[str]:
    return {entry.key.rpartition("/")[2] for entry in world.store.list(names.KNOWN_RUNS_PREFIX)}


async def test_a_run_that_still_sends_heartbeats_is_not_recorded_as_deleted(world: World):
    """Another cluster may have been made from a backup of this one, with the same bucket."""
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3)
    world.heartbeats.poll()
    known = world.known.read()
    assert [item.uid for item in known] == [run.uid]
    world.reconciler.record_missed_deletions(known, set(), (world.namespace,))
    world.reconciler.record_missed_deletions(known, set(), ("another-namespace",))
    assert not world.store.exists(ending_key(world, known[0]))

    trainer.beat(3, updated=datetime.now(UTC) - timedelta(hours=1))
    world.heartbeats.poll()
    world.reconciler.record_missed_deletions(known, set(), (world.namespace,))
    assert world.store.get_json(ending_key(world, known[0]), Ending).reason == "Deleted"
    assert world.known.read() == ()


async def test_a_run_that_has_ended_is_forgotten_and_stays_ended(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    assert [item.uid for item in world.known.read()] == [run.uid]
    await (await world.trainer(RUN)).succeed()
    await world.phase(RUN, "Succeeded")
    assert world.known.read() == ()
    await world.pass_over(RUN)
    await resync(world)
    assert world.known.read() == ()


async def test_a_run_gets_no_job_while_storage_does_not_take_note_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    await world.submit(RUN)
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise Unavailable("storage is full")

        patch.setattr(KnownRuns, "note", refuse)
        run = await world.until(RUN, lambda run: run.status.pending)
        assert run.status.pending.reason == "StorageUnavailable"
        assert "storage is full" in run.status.pending.message
        assert await world.jobs(RUN) == []
    await world.phase(RUN, "Starting")


async def test_the_keys_of_a_run_reach_no_note(world: World):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    key = names.known_run_key("installation", world.namespace, RUN, trainer.run.uid)
    assert world.store.exists(key)
    uses: list[Callable[[], object]] = [
        lambda: trainer.store.put_bytes(key, b""),
        lambda: trainer.store.delete([key]),
        lambda: list(trainer.store.list(names.KNOWN_RUNS_PREFIX)),
    ]
    for use in uses:
        with pytest.raises(StorageForbidden):
            use()


def test_a_note_is_written_once_and_is_of_one_installation(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    written: list[str] = []
    put = Store.put_bytes

    def counting(self: Store, key: str, data: bytes) -> None:
        written.append(key)
        put(self, key, data)

    monkeypatch.setattr(Store, "put_bytes", counting)
    mine, theirs = KnownRuns(store, lambda: "mine"), KnownRuns(store, lambda: "theirs")
    for _ in range(3):
        mine.note(IDENTITY)
    assert len(written) == 1
    assert (mine.read(), theirs.read()) == ((IDENTITY,), ())

    another = KnownRuns(store, lambda: "mine")
    another.read()
    another.note(IDENTITY)
    assert len(written) == 1
    another.forget(IDENTITY)
    assert mine.read() == ()
