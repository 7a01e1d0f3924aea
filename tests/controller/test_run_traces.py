"""Traces of runs: when they are handed over, and with what."""

import asyncio
from typing import Any, cast

import pytest

from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun
from flashrun.controller import run_traces
from flashrun.controller.run_traces import ROW_SECONDS, WAITING_LIMIT, RunTraces
from flashrun.plan.run_start import RunStart
from flashrun.plan.types import Observed
from flashrun.store import Store
from flashrun.store_errors import StoreError
from flashrun.store_listing import Entry
from tests.plan.test_run_start import OBSERVED, ROW, STARTING, STEPPED
from tests.plan.worlds import make_run


class Rows:
    """Storage with the metrics of one attempt."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.away: Exception | None = None

    def list(self, prefix: str) -> list[Entry]:
        if self.away:
            raise self.away
        key = f"{prefix}/attempt-2/after-0-part-0.jsonl"
        return [] if self.content is None else [Entry(key, len(self.content), "", None)]

    def get_bytes(self, key: str, limit: int) -> bytes:
        assert self.content is not None
        return self.content


class Collecting:
    """Traces that are handed over to a list."""

    def __init__(self) -> None:
        self.rows, self.sent, self.time = Rows(), list[RunStart](), 0.0
        self.traces = RunTraces(cast("Store", self.rows), self.sent.append, clock=lambda: self.time)

    def note(self, run: FlashRun | None = None) -> None:
        self.traces.note(run or make_run(status=STARTING), STEPPED, OBSERVED)

    def stages(self) -> list[str]:
        [start] = self.sent
        return [str(span.stage) for span in start.spans]


LINE = ROW.model_dump_json().encode() + b"\n"


async def test_a_trace_waits_for_the_first_row_and_is_handed_over_once() -> None:
    world = Collecting()
    world.note()
    world.note()
    await world.traces.look()
    assert world.sent == []
    other = MetricsRow(step=0, attempt=2, time=ROW.time, values={"eval/score": 0.5})
    world.rows.content = b"nonsense\n" + other.model_dump_json().encode() + b"\n" + LINE
    await world.traces.look()
    await world.traces.look()
    assert world.stages()[-4:] == ["imports", "loading", "evaluation", "first step"]


@pytest.mark.parametrize("content", [None, b"{}\n" * 9 + LINE, b"x" * 2_000_000])
@pytest.mark.parametrize("away", [None, StoreError("storage is away"), RuntimeError("a bug")])
async def test_without_the_row_a_trace_is_handed_over_after_a_while(
    content: bytes | None, away: Exception | None
) -> None:
    world = Collecting()
    world.rows.content, world.rows.away = content, away
    world.note()
    await world.traces.look()
    assert world.sent == []
    world.time = ROW_SECONDS
    await world.traces.look()
    assert world.stages()[-1] == "trainer"


async def test_what_waits_when_the_operator_ends_is_handed_over() -> None:
    world = Collecting()
    world.note()
    task = asyncio.create_task(world.traces.run())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    assert world.stages()[-1] == "trainer"


def test_only_so_many_traces_wait() -> None:
    world = Collecting()
    for number in range(WAITING_LIMIT + 1):
        world.note(make_run(status=STARTING).replace(uid=f"uid-{number}"))
    assert [start.uid for start in world.sent] == ["uid-0"]


def test_a_trace_that_cannot_be_made_ends_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OverflowError

    monkeypatch.setattr(run_traces, "run_start", fail)
    world = Collecting()
    world.note()
    RunTraces(cast("Store", world.rows), None).note(make_run(), STEPPED, Observed())
    assert world.sent == []
