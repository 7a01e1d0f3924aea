"""Polling: heartbeats in storage, and the resync of all runs."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.records import Heartbeat, RunIdentity
from flashrun.cluster_errors import Unreachable
from flashrun.controller import poll
from flashrun.controller.poll import READERS, HeartbeatPoller
from flashrun.controller.queue import RunKey
from flashrun.store import Entry
from flashrun.store_errors import Unavailable
from tests.controller.clocks import Clock
from tests.controller.stage import World, now

RUN = "flash-1-0a1b2c3d"


@pytest.mark.api
async def test_the_heartbeat_of_a_run_that_was_deleted_is_deleted(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3, updated=now() - timedelta(hours=1))
    world.heartbeats.poll()
    key = names.heartbeat_key(run.uid)
    world.heartbeats.delete_orphans({run.uid}, (world.namespace,))
    world.heartbeats.delete_orphans(set(), ("another-namespace",))
    assert world.store.exists(key)
    world.heartbeats.delete_orphans(set(), (world.namespace,))
    assert not world.store.exists(key)


@pytest.mark.api
async def test_a_heartbeat_of_another_run_is_ignored(world: World):
    run = await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(9)
    text = world.store.get_bytes(names.heartbeat_key(run.uid))
    world.store.put_bytes(names.heartbeat_key("some-other-uid"), text)
    keys = world.heartbeats.poll()
    assert len(keys) == 1
    assert world.heartbeats.newest("some-other-uid") is None


class SlowStore:
    """A store with many heartbeats, each of which takes a moment to read."""

    def __init__(self, count: int, seconds: float) -> None:
        self.count, self.seconds, self.problem = count, seconds, ""
        self.reads = 0

    def ensure_bucket(self) -> None: ...

    def list(self, prefix: str) -> list[Entry]:
        return [Entry(f"{prefix}{uid}.json", 9, "etag", None) for uid in range(self.count)]

    def get_json(self, key: str, model: type[Heartbeat]) -> Heartbeat:
        self.reads += 1
        time.sleep(self.seconds)
        if self.problem:
            raise Unavailable(self.problem)
        identity = RunIdentity(namespace="team", name="run", uid=names.heartbeat_uid(key))
        return model(run=identity, attempt=1, pod="pod", activity="Training", updated=now())


def test_many_heartbeats_are_read_at_the_same_time() -> None:
    store: Any = SlowStore(count=200, seconds=0.025)
    began = time.monotonic()
    assert len(HeartbeatPoller(store).poll()) == 200
    assert time.monotonic() - began < 200 * 0.025 / 3


def test_after_one_time_limit_the_other_heartbeats_are_not_waited_for() -> None:
    store: Any = SlowStore(count=200, seconds=0.1)
    store.problem = "no answer"
    poller = HeartbeatPoller(store)
    with pytest.raises(Unavailable):
        poller.poll()
    assert poller.problem == "no answer"
    assert store.reads <= 2 * READERS
    store.problem, store.seconds = "", 0.0
    assert len(poller.poll()) == 200
    assert poller.problem == ""


def test_only_time_in_which_storage_was_read_counts_as_silence() -> None:
    clock, store = Clock(), SlowStore(count=1, seconds=0.0)
    anything: Any = store
    poller = HeartbeatPoller(anything, clock)
    poller.poll()
    clock.now = 10
    poller.poll()
    assert poller.readable_seconds == 10
    clock.now, store.problem, store.count = 1000, "no answer", 2
    with pytest.raises(Unavailable):
        poller.poll()
    store.problem = ""
    poller.poll()
    assert poller.readable_seconds == 10
    clock.now = 1005
    poller.poll()
    assert poller.readable_seconds == 15


class Runs:
    """Stands in for the cluster: it lists the runs of two namespaces, after one failure."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures

    async def list(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        if self.failures:
            self.failures -= 1
            raise Unreachable("the API server is away")
        assert kind == names.KIND
        return [{"metadata": {"name": f"run-of-{namespace}", "uid": f"uid-{namespace}"}}]


async def resynced(failures: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[RunKey], Any]:
    """Return what a few resyncs made due, and what each of them passed on."""
    monkeypatch.setattr(poll, "RESYNC_SECONDS", 0.01)
    due: list[RunKey] = []
    passed_on: list[tuple[set[str], tuple[str, ...]]] = []
    cluster: Any = Runs(failures)
    task = asyncio.create_task(
        poll.resync(
            cluster,
            ("a", "b"),
            due.append,
            lambda uids, namespaces: passed_on.append((set(uids), namespaces)),
        )
    )
    await asyncio.sleep(0.2)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return due, passed_on


async def test_the_resync_makes_every_run_due_and_passes_their_uids_on(
    monkeypatch: pytest.MonkeyPatch,
):
    due, passed_on = await resynced(0, monkeypatch)
    assert due[:2] == [RunKey("a", "run-of-a"), RunKey("b", "run-of-b")]
    assert passed_on[0] == ({"uid-a", "uid-b"}, ("a", "b"))
    assert len(passed_on) > 1


async def test_a_namespace_that_cannot_be_listed_is_left_out_of_one_resync(
    monkeypatch: pytest.MonkeyPatch,
):
    due, passed_on = await resynced(1, monkeypatch)
    assert due[:2] == [RunKey("b", "run-of-b"), RunKey("a", "run-of-a")]
    assert passed_on[0] == ({"uid-b"}, ("b",))
    assert passed_on[1] == ({"uid-a", "uid-b"}, ("a", "b"))
