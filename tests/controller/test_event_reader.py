"""Few objects that wait are asked about one by one, many with one list."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from flashrun.cluster_errors import Unreachable
from flashrun.controller import event_reader
from flashrun.controller.event_reader import FEW_OBJECTS, FRESH_SECONDS, SHARE, EventReader
from tests.controller.clocks import Clock

TEAM = "team-a"
FEW = [f"uid-{number}" for number in range(FEW_OBJECTS)]
MANY = [f"uid-{number}" for number in range(FEW_OBJECTS + 1)]


def event(uid: str, message: str, second: int = 0, kind: str = "Pod") -> dict[str, Any]:
    return {
        "metadata": {},
        "involvedObject": {"kind": kind, "uid": uid},
        "reason": "FailedMount",
        "message": message,
        "lastTimestamp": f"2026-11-30T00:00:{second:02}Z",
    }


class Api:
    """Lists Events, and counts how often."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.events = clock, [event(uid, f"of {uid}") for uid in MANY]
        self.single = self.whole = 0
        self.seconds, self.down = 0.0, False

    async def newest(
        self, kind: str, namespace: str, *_: Any, fields: dict[str, str]
    ) -> tuple[Any, ...]:
        assert (kind, namespace) == ("Event", TEAM)
        self.single += 1
        uid = fields["involvedObject.uid"]
        return tuple(item for item in self.events if item["involvedObject"]["uid"] == uid)

    async def each(self, kind: str, namespace: str, page: int) -> AsyncIterator[Any]:
        assert (kind, namespace) == ("Event", TEAM)
        self.whole += 1
        self.clock.now += self.seconds
        if self.down:
            raise Unreachable("away")
        for item in self.events:
            yield item


class Reading:
    """A reader of Events with a clock of its own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.api = Api(self.clock)
        self._reader = EventReader(self.api, self.clock)  # type: ignore[arg-type]

    async def words(self, *uids: str, cached: bool = True) -> list[list[str]]:
        found = await self._reader.read(TEAM, uids, cached=cached)
        return [[notice.message for notice in found[uid]] for uid in uids]


async def test_few_objects_are_asked_about_one_by_one() -> None:
    reading = Reading()
    assert await reading.words(*FEW) == [[f"of {uid}"] for uid in FEW]
    assert (reading.api.single, reading.api.whole) == (len(FEW), 0)
    assert await reading.words() == []


async def test_one_list_answers_for_many_objects_for_a_while() -> None:
    reading = Reading()
    for uid in MANY:
        assert await reading.words(uid) == [[f"of {uid}"]]
    assert (reading.api.single, reading.api.whole) == (len(FEW), 1)
    assert await reading.words(*MANY) == [[f"of {uid}"] for uid in MANY]
    assert reading.api.whole == 1
    reading.api.events.append(event("uid-0", "later", 1))
    reading.clock.now += FRESH_SECONDS
    assert await reading.words("uid-0") == [["later", "of uid-0"]]
    assert reading.api.whole == 2


async def test_what_has_to_be_confirmed_is_asked_for_itself() -> None:
    reading = Reading()
    await reading.words(*MANY)
    reading.api.events.append(event("uid-0", "later", 1))
    assert await reading.words("uid-0", cached=False) == [["later", "of uid-0"]]


async def test_a_list_that_takes_long_answers_for_longer() -> None:
    reading = Reading()
    reading.api.seconds = 2.0
    await reading.words(*MANY)
    reading.clock.now += SHARE * 2.0 - 1
    await reading.words(*MANY)
    assert reading.api.whole == 1


async def test_a_list_that_fails_is_not_tried_again_by_each_run() -> None:
    reading = Reading()
    reading.api.down = True
    with pytest.raises(Unreachable):
        await reading.words(*MANY)
    assert await reading.words(*MANY) == [[]] * len(MANY)
    assert reading.api.whole == 1
    reading.api.down = False
    reading.clock.now += FRESH_SECONDS
    assert await reading.words("uid-1") == [["of uid-1"]]


async def test_however_many_events_there_are_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_reader, "SUBJECT_EVENTS", 2)
    monkeypatch.setattr(event_reader, "LISTED_LIMIT", 6)
    reading = Reading()
    reading.api.events = [
        event("run", "not about a pod", kind="FlashRun"),
        *(event("uid-0", f"number {second}", second) for second in (3, 1, 2)),
        event("uid-1", "kept"),
        event("uid-2", "kept, too"),
        event("uid-1", "behind the limit"),
    ]
    found = await reading.words(*MANY)
    assert found == [["number 3", "number 2"], ["kept"], ["kept, too"], [], []]


async def test_of_objects_that_nobody_has_asked_about_only_young_events_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Events stay for an hour: most are about objects that have ended."""
    monkeypatch.setattr(event_reader, "YOUNG", timedelta(seconds=10))
    monkeypatch.setattr(event_reader, "OTHERS_LIMIT", 2)
    reading = Reading()
    reading.api.events.append(event("first", "the newest of the first list", 50))
    await reading.words(*MANY)
    reading.api.events += [
        event("old", "ended long ago", 30),
        *(event(f"new-{number}", f"of new-{number}", 55) for number in range(3)),
    ]
    reading.clock.now += FRESH_SECONDS
    assert await reading.words(*MANY) == [[f"of {uid}"] for uid in MANY]
    assert await reading.words("old", "new-0", "first", "new-1", "new-2") == [
        *([], ["of new-0"]),
        *(["the newest of the first list"], [], []),
    ]
    assert reading.api.whole == 2
