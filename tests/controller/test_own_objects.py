"""Objects of a run are remembered for a short time, and only while they exist."""

import pytest

from flashrun.controller import own_objects
from flashrun.controller.own_objects import OwnObjects
from flashrun.plan.types import Object
from tests.controller.clocks import Clock

FRESH = 5.0


class Reads:
    """An object that may exist, and how often it was read."""

    def __init__(self, item: Object | None) -> None:
        self.item, self.count = item, 0

    async def __call__(self) -> Object | None:
        self.count += 1
        return self.item


async def test_an_object_that_exists_is_read_again_when_its_time_is_over() -> None:
    clock, reads = Clock(), Reads({"name": "x"})
    own = OwnObjects(clock)
    for _ in range(3):
        assert await own.read("uid", "x", reads, FRESH) == {"name": "x"}
    assert reads.count == 1
    assert await own.read("uid", "x", reads, 0.0) == {"name": "x"}
    assert reads.count == 2
    clock.now += FRESH
    reads.item = None
    assert await own.read("uid", "x", reads, FRESH) is None
    assert reads.count == 3


async def test_an_object_that_does_not_exist_is_looked_for_each_time() -> None:
    own, reads = OwnObjects(Clock()), Reads(None)
    await own.read("uid", "x", reads, FRESH)
    reads.item = {"name": "x"}
    assert await own.read("uid", "x", reads, FRESH) == {"name": "x"}


async def test_what_the_operator_changes_is_forgotten_and_so_are_runs_that_are_gone() -> None:
    own, reads = OwnObjects(Clock()), Reads({"name": "x"})
    for uid in ("one", "two"):
        await own.read(uid, "x", reads, FRESH)
    own.forget("one")
    await own.read("one", "x", reads, FRESH)
    await own.read("two", "x", reads, FRESH)
    assert reads.count == 3
    own.forget_all_except({"one"})
    assert own._known.keys() == {"one"}


async def test_what_the_operator_has_written_is_not_read() -> None:
    clock, reads = Clock(), Reads({"name": "x"})
    own = OwnObjects(clock)
    own.note("uid", "x", {"name": "written"})
    assert await own.read("uid", "x", reads, FRESH) == {"name": "written"}
    clock.now += FRESH
    assert await own.read("uid", "x", reads, FRESH) == {"name": "x"}
    assert reads.count == 1


async def test_large_content_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_objects, "KEPT_BYTES", 10)
    own, reads = OwnObjects(Clock()), Reads({"data": {"spec.json": "x" * 11}})
    await own.read("uid", "x", reads, FRESH)
    await own.read("uid", "x", reads, FRESH)
    assert reads.count == 2
