"""Polling: heartbeats in storage, and the resync of all runs."""

import asyncio
import time
from collections.abc import AsyncIterator
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
from flashrun.store_errors import Corrupt, Unavailable
from flashrun.store_listing import Entry
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
    deleted: list[RunIdentity] = []
    world.heartbeats.delete_orphans({run.uid}, (world.namespace,), deleted.append)
    world.heartbeats.delete_orphans(set(), ("another-namespace",), deleted.append)
    assert world.store.exists(key)
    assert deleted == []
    world.heartbeats.delete_orphans(set(), (world.namespace,), deleted.append)
    assert not world.store.exists(key)
    assert [identity.uid for identity in deleted] == [run.uid]


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
        self.unreadable: set[str] = set()
        self.etag, self.age = "etag", timedelta(0)

    def ensure_bucket(self) -> None: ...

    def list(self, prefix: str) -> list[Entry]:
        return [Entry(f"{prefix}{uid}.json", 9, self.etag, None) for uid in range(self.count)]

    def exists(self, key: str) -> bool:
        if self.problem:
            raise Unavailable(self.problem)
        return False

    def get_json(self, key: str, model: type[Heartbeat]) -> Heartbeat:
        self.reads += 1
        time.sleep(self.seconds)
        if self.problem or names.heartbeat_uid(key) in self.unreadable:
            raise Unavailable(self.problem or "Internal Server Error")
        identity = RunIdentity(namespace="team", name="run", uid=names.heartbeat_uid(key))
        updated = now() - self.age
        return model(run=identity, attempt=1, pod="pod", activity="Training", updated=updated)


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


def test_a_heartbeat_that_is_never_readable_costs_only_its_own_run() -> None:
    clock, store = Clock(), SlowStore(count=3, seconds=0.0)
    anything: Any = store
    poller = HeartbeatPoller(anything, clock)
    store.unreadable = {"1"}
    assert len(poller.poll()) == 2
    assert poller.problem == ""
    assert poller.refused("1") == "The heartbeat is ignored: Internal Server Error."
    assert (poller.refused("0"), poller.newest("1")) == ("", None)
    clock.now = 1
    poller.poll()
    assert poller.readable_seconds == 1
    store.unreadable = set()
    clock.now = 3
    assert len(poller.poll()) == 1
    assert (poller.refused("1"), poller.unread_etag("1")) == ("", "")
    assert poller.newest("1") is not None


def test_a_run_whose_first_heartbeat_is_refused_is_due_so_that_its_status_says_why() -> None:
    store: Any = SlowStore(count=3, seconds=0.0)
    poller = HeartbeatPoller(store)
    store.unreadable = {"1", "2"}
    poller.expect("1", RunKey("team", "first"))
    assert poller.poll() == [RunKey("team", "run"), RunKey("team", "first")]


def test_a_heartbeat_that_cannot_be_read_is_tried_again_at_growing_intervals() -> None:
    clock, store = Clock(), SlowStore(count=1, seconds=0.0)
    anything: Any = store
    poller = HeartbeatPoller(anything, clock)
    store.unreadable = {"0"}
    tried = []
    for second in range(300):
        clock.now, store.etag, before = second, f"etag-{second}", store.reads
        poller.poll()
        assert poller.unread_etag("0") == store.etag
        tried += [second] if store.reads > before else []
    assert tried == [0, 3, 9, 21, 45, 93, 153, 213, 273]


def test_a_flood_of_heartbeats_that_cannot_be_read_leaves_the_others_to_the_next_poll() -> None:
    clock, store = Clock(), SlowStore(count=100, seconds=0.0)
    anything: Any = store
    poller = HeartbeatPoller(anything, clock)
    store.unreadable = {str(number) for number in range(99)}
    polls = 0
    while poller.newest("99") is None:
        clock.now += 0.01
        poller.poll()
        polls += 1
    assert polls <= 99 // poll.UNREADABLE_LIMIT + 1


def test_keys_of_unknown_runs_are_limited_and_those_of_known_runs_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poll, "UNKNOWN_LIMIT", 5)
    store: Any = SlowStore(count=20, seconds=0.0)
    poller = HeartbeatPoller(store)
    poller.expect("19", RunKey("team", "run"))
    assert len(poller.poll()) == 6
    assert poller.newest("19") is not None
    assert poller.newest("18") is None
    poller.expect("18", RunKey("team", "other"))
    assert len(poller.poll()) == 1
    poller.delete_orphans({"19"}, (), lambda run: None)
    poller.poll()
    assert store.reads == 7


def test_a_run_that_was_created_after_the_listing_is_not_taken_for_a_deleted_one() -> None:
    """The clock of its node is an hour behind, so its heartbeat looks old."""
    store: Any = SlowStore(count=1, seconds=0.0)
    store.age, store.delete = timedelta(hours=1), lambda keys: removed.extend(keys)
    removed: list[str] = []
    deleted: list[RunIdentity] = []
    poller = HeartbeatPoller(store)
    poller.poll()
    poller.delete_orphans(set(), ("team",), deleted.append)
    assert (deleted, removed) == ([], [])
    poller.delete_orphans({"0"}, ("team",), deleted.append)
    assert (deleted, removed) == ([], [])
    poller.delete_orphans(set(), ("team",), deleted.append)
    assert [run.uid for run in deleted] == ["0"]
    assert removed == [names.heartbeat_key("0")]


def test_a_heartbeat_stays_until_the_deletion_of_its_run_is_recorded() -> None:
    store: Any = SlowStore(count=1, seconds=0.0)
    removed: list[str] = []
    store.age, store.delete = timedelta(hours=1), removed.extend

    def refuse(run: RunIdentity) -> None:
        raise Unavailable("storage is away")

    poller = HeartbeatPoller(store)
    poller.poll()
    poller.delete_orphans(set(), ("team",), refuse)
    for _ in range(2):
        with pytest.raises(Unavailable):
            poller.delete_orphans(set(), ("team",), refuse)
    assert removed == []
    poller.delete_orphans(set(), ("team",), lambda run: None)
    assert removed == [names.heartbeat_key("0")]


def test_more_keys_than_can_be_listed_are_a_problem_of_storage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poll, "KEYS_LIMIT", 5)
    store: Any = SlowStore(count=6, seconds=0.0)
    poller = HeartbeatPoller(store)
    with pytest.raises(Corrupt, match="more than 5 keys below live/"):
        poller.poll()
    assert "remove some" in poller.problem


class Runs:
    """Stands in for the cluster: it lists the runs of two namespaces, after one failure."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures

    async def list_metadata(self, kind: str, namespace: str) -> AsyncIterator[dict[str, Any]]:
        if self.failures:
            self.failures -= 1
            raise Unreachable("the API server is away")
        assert kind == names.KIND
        yield {"name": f"run-of-{namespace}", "uid": f"uid-{namespace}"}


async def resynced(failures: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[RunKey], Any]:
    """Return what a few resyncs made due, and what each of them passed on."""
    monkeypatch.setattr(poll, "RESYNC_SECONDS", 0.01)
    due: list[RunKey] = []
    passed_on: list[tuple[set[str], tuple[str, ...]]] = []
    cluster: Any = Runs(failures)
    remembered = (RunIdentity(namespace="a", name="gone", uid="uid-gone"),)

    def clean_up(known: Any, uids: Any, namespaces: tuple[str, ...]) -> None:
        assert known == remembered
        passed_on.append((set(uids), namespaces))

    task = asyncio.create_task(
        poll.resync(
            cluster,
            lambda: ("a", "b"),
            due.append,
            lambda: remembered,
            clean_up,
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
