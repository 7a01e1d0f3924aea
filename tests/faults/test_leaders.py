"""Faults of the replica that acts: another one takes over, and what was begun is written once."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from tests.controller.other_tenant import stretched
from tests.faults import kinds
from tests.faults.results import Result, recorded
from tests.faults.scene import Replica, Scene

pytestmark = [pytest.mark.api, pytest.mark.faults]
RUNS = ("flash-1-leader", "flash-2-leader")
WHERE = "replica that acts"
AWAY_SECONDS = 20.0
"""For how long the replica is away that comes back."""


async def _signalled(number: signal.Signals, scene: Scene, first: Replica) -> None:
    assert first.process is not None
    first.process.send_signal(number)
    await scene.submit(*RUNS)


async def killed(scene: Scene, first: Replica, after: Callable[[], Awaitable[None]]) -> None:
    await _signalled(signal.SIGKILL, scene, first)
    await after()


async def ended(scene: Scene, first: Replica, after: Callable[[], Awaitable[None]]) -> None:
    await _signalled(signal.SIGTERM, scene, first)
    await after()


async def stopped(scene: Scene, first: Replica, after: Callable[[], Awaitable[None]]) -> None:
    """Also while it writes: it has begun with the runs when it stops, and goes on behind them."""
    assert first.process is not None
    await scene.submit(*RUNS)
    await asyncio.sleep(0.1)
    first.process.send_signal(signal.SIGSTOP)
    await after()
    await asyncio.sleep(AWAY_SECONDS)
    first.process.send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(first.process.wait, 20) == 1


async def cut_off(scene: Scene, first: Replica, after: Callable[[], Awaitable[None]]) -> None:
    with first.api.with_faults(kinds.Hang()):
        await scene.submit(*RUNS)
        await after()
        await asyncio.sleep(AWAY_SECONDS)
    assert first.process is not None
    assert await asyncio.to_thread(first.process.wait, 40) == 1


async def not_renewing(scene: Scene, first: Replica, after: Callable[[], Awaitable[None]]) -> None:
    """Everything else is answered, so that it could go on to write."""
    with first.api.with_faults(kinds.Hang(kinds.leases)):
        for number in range(8):
            await scene.submit(f"flash-{number}-late")
            await asyncio.sleep(1.0)
        await after()


async def storage_hangs(scene: Scene, first: Replica, after: Callable[[], Awaitable[None]]) -> None:
    """Writes to storage hang when the lease is lost, and would be sent again behind that."""
    slow = kinds.Hang(lambda e: e.is_write or e.is_sts, breaks=True)
    with first.storage.with_faults(slow):
        await scene.submit(*RUNS)
        await asyncio.sleep(2.0)
        with first.api.with_faults(kinds.Hang(kinds.leases)):
            await after()
            slow.over = True
            await asyncio.sleep(AWAY_SECONDS)


class Row(NamedTuple):
    """One fault of the replica that acts."""

    name: str
    happens: Callable[[Scene, Replica, Callable[[], Awaitable[None]]], Awaitable[None]]
    """Does it, and calls what waits for the other replica."""
    limit: float = 10.0


ROWS = (
    Row("it is killed (SIGKILL)", killed),
    Row("it is ended (SIGTERM)", ended, 2.0),
    Row("it is stopped for 20 s (SIGSTOP), and goes on", stopped),
    Row("nothing reaches the API server for 20 s, then all does", cut_off),
    Row("renewals of its lease hang, all else is answered", not_renewing),
    Row("its writes to storage hang, and renewals of its lease", storage_hangs),
)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
async def test_another_replica_takes_over(scene: Scene, row: Row):
    with recorded(Result(WHERE, row.name, limit=row.limit)) as result:
        first, second = scene.add("operator-0"), scene.add("operator-1")
        await scene.until_ready(first if scene.leads(first) else await leader(scene))
        first, second = in_order(scene)
        began = time.monotonic()

        async def after() -> None:
            await scene.until_leading(second, 60)
            result.seconds = time.monotonic() - began - waited(row)

        await row.happens(scene, first, after)
        await scene.until_phase("Starting", 60)
        await scene.end_training(await scene.begin_training())
        await scene.until_phase("Succeeded", 60)
        writes = len(first.writes()) + len(second.writes())
        result.writes = writes / len(scene.submitted)
        violations = await scene.violations()
        assert not violations, "; ".join(violations)
        assert result.seconds is not None
        assert result.seconds <= stretched(row.limit), f"it took {result.seconds:.1f} s"


def waited(row: Row) -> float:
    """Return the seconds before the fault, and those in which the lease is rightly held."""
    return {not_renewing: 0.0, storage_hangs: 2.0}.get(row.happens, 0.0)


async def leader(scene: Scene) -> Replica:
    await scene.until(lambda: any(map(scene.leads, scene.replicas)), 60, "one replica leads")
    return next(replica for replica in scene.replicas if scene.leads(replica))


def in_order(scene: Scene) -> tuple[Replica, Replica]:
    """Return the replica that acts, and the other one."""
    first, second = sorted(scene.replicas, key=lambda replica: not scene.leads(replica))
    return first, second
