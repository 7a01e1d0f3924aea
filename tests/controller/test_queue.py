"""The queue, with a clock of its own."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from flashrun.controller import queue
from flashrun.controller.queue import Promised, Queue, RunKey


def key(name: str, namespace: str = "a") -> RunKey:
    return RunKey(namespace, name)


class Work:
    """Workers on a queue, and what they were handed."""

    def __init__(self, workers: int = 1) -> None:
        self.queue = Queue(asyncio.get_running_loop().time)
        self.seen: list[RunKey] = []
        self.answers: dict[str, Iterator[object]] = {}
        self.hold: dict[str, asyncio.Event] = {}
        self.tasks = [asyncio.create_task(self.queue.work(self.handle)) for _ in range(workers)]

    async def handle(self, found: RunKey) -> float | None:
        self.seen.append(found)
        if found.name in self.hold:
            await self.hold[found.name].wait()
        answer = next(self.answers.get(found.name, iter(())), None)
        if isinstance(answer, Exception):
            raise answer
        assert answer is None or isinstance(answer, float)
        return answer

    async def stop(self) -> list[str]:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return [found.name for found in self.seen]


async def test_a_key_that_is_added_often_is_worked_on_once():
    work = Work()
    for _ in range(5):
        work.queue.add(key("x"))
    await asyncio.sleep(0.05)
    assert await work.stop() == ["x"]


async def test_a_key_that_was_promised_overtakes_others_that_have_waited_for_longer(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(queue, "PATIENCE_SECONDS", 0.1)
    work = Work()
    names = [f"k{number}" for number in range(100)]
    work.answers = {"k0": iter([Promised(0.01)])}

    async def take_a_moment(found: RunKey) -> float | None:
        await asyncio.sleep(0.005)
        return await Work.handle(work, found)

    work.tasks.append(asyncio.create_task(work.queue.work(take_a_moment)))
    work.tasks.pop(0).cancel()
    for name in names:
        work.queue.add(key(name))
    await asyncio.sleep(0.4)
    seen = await work.stop()
    assert seen.count("k0") == 2
    assert 10 < seen.index("k0", 1) < 60
    assert seen[1:3] == ["k1", "k2"]


async def test_what_arrives_during_the_work_makes_the_key_due_again_and_never_twice_at_a_time():
    work = Work(workers=3)
    work.hold["x"] = asyncio.Event()
    work.queue.add(key("x"))
    await asyncio.sleep(0.02)
    for _ in range(3):
        work.queue.add(key("x"))
    await asyncio.sleep(0.02)
    assert len(work.seen) == 1
    work.hold["x"].set()
    await asyncio.sleep(0.05)
    assert await work.stop() == ["x", "x"]


async def test_an_earlier_time_wins_over_a_later_one():
    work = Work()
    work.queue.add(key("x"), 60)
    work.queue.add(key("x"), 0.05)
    work.queue.add(key("x"), 30)
    await asyncio.sleep(0.15)
    assert await work.stop() == ["x"]


async def test_a_key_comes_back_when_its_work_asks_for_it():
    work = Work()
    work.answers["x"] = iter([0.02, 0.02])
    work.queue.add(key("x"))
    await asyncio.sleep(0.2)
    assert await work.stop() == ["x", "x", "x"]


async def test_failures_come_back_later_each_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flashrun.controller.queue.FIRST_RETRY_SECONDS", 0.04)
    work = Work()
    moments: list[float] = []

    async def fail(_: RunKey) -> None:
        moments.append(asyncio.get_running_loop().time())
        raise ValueError

    await work.stop()
    task = asyncio.create_task(work.queue.work(fail))
    work.queue.add(key("x"))
    await asyncio.sleep(0.5)
    task.cancel()
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert len(pauses) >= 3
    assert pauses[2] > 2 * pauses[0]


async def test_what_failed_is_retried_at_once_when_its_cause_is_over(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("flashrun.controller.queue.FIRST_RETRY_SECONDS", 600.0)
    work = Work()
    work.answers["x"] = iter([ValueError()])
    work.queue.add(key("x"))
    await asyncio.sleep(0.05)
    assert [found.name for found in work.seen] == ["x"]
    work.queue.hurry()
    await asyncio.sleep(0.05)
    assert await work.stop() == ["x", "x"]


async def test_a_failure_holds_up_nobody_else():
    work = Work()
    work.answers["bad"] = iter([ValueError(), ValueError()])
    work.queue.add(key("bad"))
    work.queue.add(key("good"))
    await asyncio.sleep(0.05)
    assert await work.stop() == ["bad", "good"]


async def test_namespaces_take_turns():
    queue = Queue(asyncio.get_running_loop().time)
    for number in range(1000):
        queue.add(key(f"x{number}", "crowd"))
    queue.add(key("y", "quiet"))
    work: list[str] = []

    async def handle(found: RunKey) -> None:
        work.append(found.namespace)

    task = asyncio.create_task(queue.work(handle))
    await asyncio.sleep(0.2)
    task.cancel()
    assert "quiet" in work[:2]
    assert len(work) == 1001


async def test_the_queue_knows_how_long_its_worst_key_waits():
    now = 100.0
    queue = Queue(lambda: now)
    assert (len(queue), queue.oldest_seconds()) == (0, 0)
    queue.add(key("x"))
    queue.add(key("later"), 60)
    now = 130.0
    assert (len(queue), queue.oldest_seconds()) == (1, 30)


@pytest.mark.parametrize("turns", range(4))
async def test_a_worker_that_is_cancelled_together_with_a_change_ends(turns: int) -> None:
    """Of the event loop's turns between both, each is another race."""

    async def handle(key: RunKey) -> float | None:
        raise AssertionError(key)

    queue = Queue(asyncio.get_running_loop().time)
    queue.add(key("later"), 2000)
    worker = asyncio.create_task(queue.work(handle))
    await asyncio.sleep(0.01)
    queue.add(key("sooner"), 1000)
    for _ in range(turns):
        await asyncio.sleep(0)
    worker.cancel()
    done, _ = await asyncio.wait([worker], timeout=1)
    assert done == {worker}
