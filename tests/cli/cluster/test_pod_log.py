"""One container's log, over lost connections and rotated files."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from flashrun.cli.cluster import pod_log
from flashrun.cluster import Cluster
from tests.cli.following import Following, Stage, wait_until

LOGS = [
    ("nothing was shown", [], ["a", "b"], ["a", "b"]),
    ("some was shown", ["a", "b"], ["a", "b", "c"], ["c"]),
    ("all was shown", ["b", "c"], ["a", "b", "c"], []),
    ("a line comes twice", ["x", "a"], ["a", "x", "a", "y"], ["y"]),
    ("its beginning was cut off in storage", ["b"], ["(left out)", "b", "c"], ["c"]),
    ("it is another log", ["z"], ["a", "b"], ["a", "b"]),
]


@pytest.mark.parametrize(
    ("shown", "stored", "rest"), [case[1:] for case in LOGS], ids=[case[0] for case in LOGS]
)
def test_storage_continues_after_what_was_shown(
    shown: list[str], stored: list[str], rest: list[str]
) -> None:
    assert list(pod_log.lines_after(stored, shown)) == rest


def test_a_second_reading_returns_only_new_lines() -> None:
    recent = pod_log.RecentLines()
    first = [f"2026-11-22T12:00:0{second}.5Z {second}" for second in range(6)]
    assert all(map(recent.is_new, first))

    recent.begin_reading()
    again = [line for line in first if line >= f"{recent.since:%Y-%m-%dT%H:%M:%S}"]
    late = "2026-11-22T12:00:04.1Z late, from the other stream"
    new = "2026-11-22T12:00:06.0Z new"

    assert [line for line in [*again[:1], late, *again[1:], new, new] if recent.is_new(line)] == [
        late, new, new,
    ]  # fmt: skip


def test_a_lost_stream_is_continued_where_it_was(stage: Stage) -> None:
    log = stage.pod()
    stage.report(phase="Running", **stage.attempts(1))
    log.write("same", "same", "one", seconds=0)
    with Following(stage, "log", stage.run, "-f") as following:
        following.wait_for("one")
        log.cut()
        log.write("same", "two", seconds=0)
        following.wait_for("two")
        log.write("three", seconds=30)
        following.wait_for("three")
        log.cut()
        wait_until(lambda: len(log.readings) >= 3)
        log.write("four")
        stage.ended()
        stage.report(phase="Succeeded")
        lines, _ = following.finish()

    assert lines == ["same", "same", "one", "same", "two", "three", "four"]
    assert log.readings[-1]["sinceTime"] == "2026-11-22T12:00:28Z"


def test_a_rotated_file_takes_no_line_with_it(stage: Stage) -> None:
    log = stage.pod()
    stage.report(phase="Running", **stage.attempts(1))
    log.write("one", "two", seconds=5)
    with Following(stage, "log", stage.run, "-f") as following:
        following.wait_for("two")
        log.rotate()
        log.write("three", "four", seconds=20)
        following.wait_for("four")
        stage.ended()
        stage.report(phase="Succeeded")
        lines, _ = following.finish()

    assert lines == ["one", "two", "three", "four"]


@dataclass
class PlayedPod:
    """A pod whose log ends in each reading; its status says so when all readings are used up."""

    readings: Sequence[Sequence[str]]
    done: int = 0
    pauses: list[float] = field(default_factory=list)

    async def find(self, *_: object) -> dict[str, Any]:
        state = "terminated" if self.done >= len(self.readings) - 1 else "running"
        statuses = [{"name": "trainer", "state": {state: {}}}]
        return {"status": {"phase": "Running", "containerStatuses": statuses}}

    async def logs(self, *_: object, **__: object) -> AsyncIterator[str]:
        self.done += 1
        for line in self.readings[self.done - 1]:
            yield line

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


PAUSES = [
    ("the pod's status comes right after the log", [["a"], []], [0.1]),
    ("it comes late", [["a"], *[[]] * 6], [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
    ("something was written meanwhile", [["a"], [], [], ["b"], []], [0.1, 0.2, 0.4, 0.1]),
]


@pytest.mark.parametrize(
    ("readings", "pauses"), [case[1:] for case in PAUSES], ids=[case[0] for case in PAUSES]
)
async def test_a_log_that_has_ended_is_asked_for_again_soon_and_then_less_often(
    readings: list[list[str]], pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = [
        [f"2026-11-22T12:00:0{number}Z {line}" for line in lines]
        for number, lines in enumerate(readings)
    ]
    pod = PlayedPod(timed)
    monkeypatch.setattr(asyncio, "sleep", pod.sleep)
    log = pod_log.PodLog(cast("Cluster", pod), "default", "run-1", "trainer")

    assert [line async for line in log.read_lines()] == [line for one in readings for line in one]
    assert pod.pauses == pytest.approx(pauses)
