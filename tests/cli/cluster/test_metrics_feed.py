"""The metrics of a followed run are read from storage as they grow, and not more often."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.metrics_feed import READ_SECONDS, HistoryReader, MetricsFeed
from flashrun.cli.output.failure import Failure
from flashrun.store import Store
from flashrun.store_listing import Entry
from tests.cli.golden import golden_run
from tests.cli.storage import metrics_history

PREFIX = "runs/team/run/uid/"
KEY = names.metrics_key(PREFIX)


def losses(*steps: int, value: float = 0.5) -> bytes:
    return metrics_history({step: {"loss": value} for step in steps})


def steps_of(rows: Sequence[MetricsRow]) -> list[int]:
    return [row.step for row in rows]


def test_each_reading_brings_only_what_was_added(store: Store) -> None:
    reader = HistoryReader(PREFIX)
    assert reader.read_new(store).rows == []  # there is none yet

    brought = []
    for last in (2, 2, 5):
        store.put_bytes(KEY, losses(*range(1, last + 1)))
        new = reader.read_new(store)
        brought.append((steps_of(new.rows), new.from_start))

    assert brought == [([1, 2], True), ([], False), ([3, 4, 5], False)]


def test_half_a_line_is_read_when_it_is_whole(store: Store) -> None:
    whole, reader = losses(1, 2, 3), HistoryReader(PREFIX)
    read = []
    for length in (len(whole) - 10, len(whole)):
        store.put_bytes(KEY, whole[:length])
        read += steps_of(reader.read_new(store).rows)

    assert read == [1, 2, 3]


REWRITTEN = [
    ("shorter", losses(1, 2)),
    ("with other values", losses(1, 2, 3, value=0.7)),
    ("longer by now", losses(1, 2, value=0.5) + losses(3, 4, 5, 6, value=0.25)),
    ("empty", b""),
]


@pytest.mark.parametrize("history", [c[1] for c in REWRITTEN], ids=[c[0] for c in REWRITTEN])
def test_a_history_that_another_attempt_wrote_again_is_read_whole(
    store: Store, history: bytes
) -> None:
    reader = HistoryReader(PREFIX)
    store.put_bytes(KEY, losses(1, 2, 3, 4))
    reader.read_new(store)

    store.put_bytes(KEY, history)
    new = reader.read_new(store)
    assert new.from_start
    assert [row.values for row in new.rows] == [
        row.values for row in HistoryReader(PREFIX).read_new(store).rows
    ]

    store.put_bytes(KEY, history + losses(9))
    assert steps_of(reader.read_new(store).rows)[-1:] == [9]


def put(store: Store, attempt: int, after: int, number: int, content: bytes) -> None:
    store.put_bytes(names.metrics_part_key(PREFIX, attempt, after, number), content)


def test_of_parts_only_what_was_added_is_read(store: Store) -> None:
    reader = HistoryReader(PREFIX)
    put(store, 1, 0, 0, losses(1, 2))
    brought = [reader.read_new(store)]
    put(store, 1, 0, 0, losses(1, 2, 3))
    put(store, 1, 0, 1, losses(4))
    brought.append(reader.read_new(store))
    brought.append(reader.read_new(store))

    assert [(steps_of(new.rows), new.from_start) for new in brought] == [
        ([1, 2], True),
        ([3, 4], False),
        ([], False),
    ]


def test_a_new_attempt_takes_back_what_it_trains_again(store: Store) -> None:
    reader = HistoryReader(PREFIX)
    put(store, 1, 0, 0, losses(1, 2, 3, 4))
    reader.read_new(store)
    put(store, 2, 2, 0, b"")
    taken_back = reader.read_new(store)
    put(store, 2, 2, 0, losses(3, value=0.25))
    added = reader.read_new(store)

    assert (steps_of(taken_back.rows), taken_back.from_start) == ([1, 2], True)
    assert (steps_of(added.rows), added.from_start) == ([3], False)
    assert added.rows[0].values == {"loss": 0.25}


class PlainStore:
    """Storage that holds one history, and counts how often it is read."""

    def __init__(self) -> None:
        self.history, self.readings = losses(1), 0
        self.hangs = threading.Event()
        self.hangs.set()

    def list(self, prefix: str) -> Iterator[Entry]:
        self.readings += 1
        self.hangs.wait(60)
        yield Entry(f"{prefix}/attempt-1/after-0-part-0.jsonl", len(self.history), "", None)

    def get_bytes(self, key: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        return self.history[offset:]


class Session:
    """A session with this storage; without it nobody has keys."""

    def __init__(self, store: PlainStore | None) -> None:
        self.store, self.asked = store, 0

    async def open_store(self) -> PlainStore:
        self.asked += 1
        if self.store is None:
            raise Failure("no keys")
        return self.store


class SeenRows:
    """The rows that a view was given."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def show_metrics(self, rows: Sequence[MetricsRow], *, from_start: bool) -> None:
        self.steps += steps_of(rows)


class Feed:
    """A feed whose time a test moves on."""

    def __init__(self, store: PlainStore | None) -> None:
        self.session, self.view, self.now = Session(store), SeenRows(), 1000.0
        played: Any = (self.session, self.view)
        self.feed = MetricsFeed(*played, clock=lambda: self.now)

    async def poll(self, step: int, seconds: float = 1.0) -> None:
        """Poll the status, as following does every second."""
        self.now += seconds
        self.feed.update(at_step(step))
        await self.feed.wait()


RUN = golden_run("running")


def at_step(step: int) -> FlashRun:
    assert RUN.status.progress is not None
    progress = RUN.status.progress.replace(step=step)
    return RUN.replace(status=RUN.status.replace(progress=progress))


async def test_storage_is_not_read_while_the_status_stays_the_same() -> None:
    store = PlainStore()
    played = Feed(store)
    for _ in range(100):
        await played.poll(1)

    assert (store.readings, played.view.steps) == (1, [1])


async def test_a_run_with_a_step_each_second_is_read_every_ten_seconds() -> None:
    store = PlainStore()
    played = Feed(store)
    for step in range(1, 101):
        store.history = losses(*range(1, step + 1))
        await played.poll(step)

    assert store.readings == 100 / READ_SECONDS
    assert played.view.steps == list(range(1, 92))


async def test_the_last_steps_are_read_at_the_end() -> None:
    store = PlainStore()
    played = Feed(store)
    await played.poll(1)
    store.history = losses(1, 2, 3)
    await played.feed.finish(at_step(3))

    assert played.view.steps == [1, 2, 3]


async def test_without_keys_storage_is_tried_less_and_less_often() -> None:
    played = Feed(None)
    for step in range(1, 1001):
        await played.poll(step)

    assert played.session.asked == 7  # pauses of 20, 40, 80, 160, 300 and 300 seconds
    assert played.view.steps == []


async def test_a_storage_that_hangs_holds_nobody_up() -> None:
    store = PlainStore()
    store.hangs.clear()
    played = Feed(store)
    played.feed.update(at_step(1))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(played.feed.stop(), 5)
    store.hangs.set()

    assert store.readings == 1
    assert played.view.steps == []
