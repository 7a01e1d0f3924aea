"""What an operator costs that starts with many runs, most of which have ended.

    python -m bench.operator_start [--runs 1000] [--idle 60]

It starts an API server with the Job controller, MinIO and an operator. Of the runs 90 % have ended,
5 % wait for their pods, and 5 % have a pod that runs and a heartbeat. Then another operator process
takes the place of the first one. Measured is the time until it has looked at every run that goes on
and nothing is due, its memory, and what it costs while nothing changes.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from bench import sides
from bench.many_runs import beat
from bench.memory_meter import Meter
from bench.operator import READS, TEAM, WRITES, Processor, Requests, answered_requests
from flashrun.api import names
from flashrun.cluster import Cluster
from tests.controller.conftest import Operators
from tests.controller.stage import Kubelet, World, flash_run, platform, push_environment
from tests.servers import Minio, install_crd, kubectl, start_control_plane

START_SECONDS = 30.0
LIMIT_MIB = 300.0
IDLE_PERCENT = 2.0
LONGEST_SECONDS = 1200.0
AT_ONCE = 20
_METRIC = re.compile(r"^(flashrun_\w+) (\S+)$", re.MULTILINE)


async def each(work: Callable[[str], Awaitable[object]], run_names: Iterable[str]) -> None:
    """Do ``work`` for each run, for a few at a time."""
    waiting = iter(run_names)

    async def some() -> None:
        for name in waiting:
            await work(name)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


class ManyRuns:
    """The runs, and the operator processes that serve them."""

    def __init__(self, world: World, operators: Operators, count: int) -> None:
        self._world, self._operators = world, operators
        part = max(1, count // 20)
        self._ended = [f"flash-{number}-ended" for number in range(count - 2 * part)]
        self._waiting = [f"flash-{number}-waiting" for number in range(part)]
        self._live = [f"flash-{number}-live" for number in range(part)]

    async def create(self) -> None:
        """Create all runs; the first operator starts those that go on."""
        await each(self._create_ended, self._ended)
        print(f"{len(self._ended)} runs have ended", flush=True)
        first = self._operators.start()
        self._operators.wait(lambda: self._operators.leads(first), 60)
        await each(self._submit, (*self._waiting, *self._live))
        await each(self._start_pod, self._live)
        runs = [await self._world.run(name) for name in self._live]
        await asyncio.to_thread(beat, self._world.store, runs, 1, {"loss": 1.0})
        await self._until_running()
        first.terminate()
        await asyncio.to_thread(first.wait, 60)
        print(f"{len(self._waiting)} wait, {len(self._live)} are live", flush=True)

    async def measure(self, idle_seconds: float) -> int:
        """Start another operator; print what it costs, and return 1 when it is too much."""
        going_on = len(self._waiting) + len(self._live)
        began = time.monotonic()
        process = self._operators.start()
        while not self._has_looked_at(process, going_on):
            if time.monotonic() - began > LONGEST_SECONDS:
                raise SystemExit(f"it is never done; logs: {self._operators.logs()[-3000:]}")
            await asyncio.sleep(0.2)
        seconds = time.monotonic() - began
        used = Processor(process.pid).seconds()
        await asyncio.sleep(30)
        meter, processor = Meter(process.pid), Processor(process.pid)
        before, idle = await self._requests(), processor.seconds()
        await asyncio.sleep(idle_seconds)
        percent = 100 * (processor.seconds() - idle) / idle_seconds
        requests = await self._requests()
        requests.subtract(before)
        print("  requests while idle:", {k: n for k, n in requests.items() if n > 0})
        writes = sum(
            n for (verb, kind), n in requests.items() if verb in WRITES and kind != "leases"
        )
        reads = sum(n for (verb, kind), n in requests.items() if verb in READS and kind != "leases")
        count = len(self._ended) + going_on
        print(f"{count} runs, {used:.1f} s of processor time at the start; {sides.machine()}")
        return sides.verdict(
            (f"every run that goes on was seen after {seconds:.1f} s", seconds <= START_SECONDS),
            (f"{meter.now():.0f} MiB of memory", meter.now() <= LIMIT_MIB),
            (f"{percent:.1f} % of a core while idle", percent <= IDLE_PERCENT),
            (f"{writes} writes while idle, and {reads} reads", writes == 0),
        )

    async def _create_ended(self, name: str) -> None:
        await self._world.cluster.create(flash_run(TEAM, name))
        status = {"phase": "Succeeded", "observedGeneration": 1, "gpuSeconds": 60}
        await self._world.cluster.patch_status(names.KIND, TEAM, name, status)

    async def _submit(self, name: str) -> None:
        await self._world.cluster.create(flash_run(TEAM, name))

    async def _start_pod(self, name: str) -> None:
        await Kubelet(self._world.cluster).start(await self._world.pod(name, seconds=600))

    async def _until_running(self) -> None:
        """Wait until the operator has written what each run does.

        Pods are started again where a Job was created again: on a busy machine an answer may come
        too late.
        """
        end, missing = time.monotonic() + LONGEST_SECONDS, [*self._waiting, *self._live]
        while missing:
            if time.monotonic() > end:
                logs = self._operators.logs()[-3000:]
                raise SystemExit(f"{len(missing)} runs do not go on; logs: {logs}")
            await asyncio.sleep(2)
            phases = [(name, (await self._world.run(name)).status.phase) for name in missing]
            live = set(self._live)
            missing = [
                name for name, phase in phases if not phase or (name in live and phase != "Running")
            ]
            await each(self._start_pod, [name for name in missing if name in live])

    def _has_looked_at(self, process: subprocess.Popen[bytes], count: int) -> bool:
        """Return whether an operator has made so many passes, and nothing is due."""
        metrics = dict(_METRIC.findall(self._operators.ask(process, "/metrics")[1]))
        passes = float(metrics.get("flashrun_reconcile_duration_seconds_count", 0))
        return passes >= count and float(metrics.get("flashrun_queue_length", 1)) == 0

    async def _requests(self) -> Requests:
        return await answered_requests(self._world.kubeconfig)


async def measure(folder: Path, count: int, idle_seconds: float) -> int:
    """Measure on servers of its own; return 1 when something costs too much."""
    minio = Minio(folder / "minio")
    minio.start()
    plane = start_control_plane(folder / "plane")
    try:
        install_crd(plane.kubeconfig)
        kubectl(plane.kubeconfig, "create", "namespace", TEAM)
        store = minio.store("operator-start")
        push_environment(store)
        async with await Cluster.login(plane.kubeconfig) as cluster:
            world = World(cluster, store, platform(TEAM, store.access), plane.kubeconfig)
            operators = Operators(folder, plane.kubeconfig, world)
            try:
                runs = ManyRuns(world, operators, count)
                await runs.create()
                return await runs.measure(idle_seconds)
            finally:
                operators.stop()
    finally:
        plane.remove()
        minio.stop()


def main() -> int:
    """Measure once; print the costs, and return 1 when they are too high."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds without a change")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(Path(folder), given.runs, given.idle))


if __name__ == "__main__":
    sys.exit(main())
