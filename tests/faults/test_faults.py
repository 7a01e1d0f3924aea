"""Every fault of the table, while runs are submitted and while they end."""

import asyncio
import time

import pytest

from tests.faults import kinds
from tests.faults.results import Result, recorded
from tests.faults.scene import Replica, Scene
from tests.faults.table import OPERATOR, ROWS, SECONDS, Row

pytestmark = pytest.mark.api
RUNS = ("flash-1-fault", "flash-2-fault")
MOST_WRITES = 40
"""A run that nothing happens to takes half of it."""
MOST_WRITES_AND_START = 80
"""With those of an operator that starts: it proves storage, and publishes."""


async def live_through(scene: Scene, row: Row) -> float:
    """Let runs live from begin to end, with the fault of a row; return the seconds that it cost."""
    if "start" in row.windows:
        cost = await through_window(scene, row, lambda: scene.submit(*RUNS), "Starting")
    else:
        await scene.submit(*RUNS)
        await scene.until_phase("Starting", SECONDS)
        cost = 0.0
    trainers = await scene.begin_training()
    await scene.until_phase("Running", SECONDS)

    async def succeed() -> None:
        await scene.end_training(trainers)

    if "end" in row.windows:
        return max(cost, await through_window(scene, row, succeed, "Succeeded"))
    await succeed()
    await scene.until_phase("Succeeded", SECONDS)
    return cost


async def through_window(scene: Scene, row: Row, act, phase: str) -> float:
    """Act during a fault; return how long after it the runs were in a phase."""
    if not row.reachable:
        await act()
    began = time.monotonic()
    async with row.begin(scene):
        if row.reachable:
            await act()
            began = time.monotonic()
        await asyncio.sleep(began + row.lasts - time.monotonic())
    ended = began if row.from_begin else time.monotonic()
    await scene.until_phase(phase, row.limit - (time.monotonic() - ended))
    return time.monotonic() - ended


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row, id=f"{row.where}: {row.name}", marks=() if row.quick else pytest.mark.faults
        )
        for row in ROWS
    ],
)
async def test_runs_reach_their_right_end(scene: Scene, row: Row):
    with recorded(Result(row.where, row.name, limit=row.limit)) as result:
        replica = scene.add("operator-0")
        old = kinds.OldSnapshot()
        if "snapshot" in row.name:
            replica.api.faults.append(old)
        await scene.until_ready(replica)
        process, begun = replica.process, len(replica.writes())
        result.seconds = await live_through(scene, row)
        result.writes = (len(replica.writes()) - begun) / len(RUNS)
        most = MOST_WRITES_AND_START if row.restarts else MOST_WRITES
        await finished(scene, result, most)
        assert replica.alive
        assert row.restarts or replica.process is process


async def finished(scene: Scene, result: Result, most_writes: int = MOST_WRITES) -> None:
    """Check what must hold in the end."""
    violations = await scene.violations()
    assert not violations, "; ".join(violations)
    assert result.writes is not None
    assert result.writes <= most_writes


@pytest.mark.faults
async def test_a_crash_after_each_own_write_leaves_work_that_is_finished(scene: Scene):
    """The proxies kill the operator after its n-th write, for each n of a run's life."""
    replica = scene.add("operator-0")
    number = 0
    while True:
        number += 1
        await scene.until_ready(replica)
        result = Result(OPERATOR, f"killed after write {number} of a run", limit=SECONDS)
        with recorded(result):
            run = f"flash-{number}-crash"
            own = kinds.writes_of(run)
            crash = kinds.AfterWrite(own, number=number, call=replica.process.kill)
            before = len(replica.writes())
            with replica.api.with_faults(crash), replica.storage.with_faults(crash):
                scene.submitted.clear()
                result.seconds = await live_and_crash(scene, replica, run)
            result.writes = len(replica.writes()) - before
            await finished(scene, result, MOST_WRITES_AND_START)
            if len(crash.done) < number:
                result.name = f"not killed: a run has {len(crash.done)} writes"
                assert number > 8
                return
            result.name += f", {crash.done[number - 1]}"


async def live_and_crash(scene: Scene, replica: Replica, run: str) -> float:
    """Let a run live, and start the operator again when it was killed."""

    killed: list[float] = []

    async def restart() -> None:
        while replica.alive:  # noqa: ASYNC110 - a thread that waits could not be ended
            await asyncio.sleep(0.02)
        killed.append(time.monotonic())
        scene.start(replica)

    restarting = asyncio.create_task(restart())
    try:
        await scene.submit(run)
        await scene.until_phase("Starting", SECONDS)
        started = time.monotonic()
        slept = started - killed[0] if killed else 0.0
        trainers = await scene.begin_training()
        await scene.until_phase("Running", SECONDS)
        await scene.end_training(trainers)
        await scene.until_phase("Succeeded", SECONDS)
        if killed and not slept:
            slept = time.monotonic() - killed[0]
        await asyncio.sleep(1.0)  # what comes after the last status
        return slept
    finally:
        restarting.cancel()
