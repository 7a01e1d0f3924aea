"""An hour of random faults at one run a second: does the operator stay as it was at the begin?

    python -m bench.operator_soak [--minutes 60] [--rate 1.0] [--seed 1]

An API server, etcd, controller manager and S3 server are started on loopback, and an operator
behind the two proxies of `tests/faults`. Runs are submitted at the rate, and trained at once. Every
few seconds one fault begins that is drawn at random, and lasts for a few seconds; the seed decides
which. Every minute a line is printed. It ends with an error unless every run has succeeded with one
Job, nothing was written without the lease, and neither memory nor descriptors have grown.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench import sides
from flashrun.api import names
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError
from flashrun.store_errors import StoreError
from tests.controller.conftest import Operators
from tests.controller.stage import Kubelet, Trainer, World, platform, push_environment
from tests.faults.scene import Scene
from tests.faults.table import API, ROWS, S3, SERVERS, Row
from tests.servers import Minio, install_crd, kubectl, start_control_plane

NAMESPACE = "team-soak"
KEPT_RUNS = 50
"""Runs that have ended and are not deleted yet."""
PAUSE, LASTS, LASTS_STOPPED = (3.0, 12.0), (2.0, 10.0), (1.0, 4.0)
"""Between two faults; of a fault; of a server that is stopped. From, to."""
LAST_SECONDS = 90.0
"""Behind the last fault, for what is still to end."""
WARM_UP = 0.25
"""The part of the time in which memory may grow: caches fill."""
GROWTH, MORE_DESCRIPTORS = 1.05, 10


class Reading(NamedTuple):
    """What the operator's process has."""

    at: float
    megabytes: float
    descriptors: int
    threads: int


@dataclass
class Soak:
    """One run of all."""

    scene: Scene
    rng: random.Random
    submitted: dict[str, float] = field(default_factory=dict)
    """Runs that have not ended → when they were submitted."""
    trained: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    """From submission to success."""
    total: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)

    async def run(self, minutes: float, rate: float) -> None:
        """Submit runs for some minutes, and wait for them."""
        replica = self.scene.replicas[0]
        assert replica.process is not None
        beside = [
            asyncio.create_task(task)
            for task in (self._train(), self._collect(), self._measure(replica.process.pid))
        ]
        faults = asyncio.create_task(self._go_wrong())
        began = time.monotonic()
        while time.monotonic() < began + minutes * 60:
            await self._submit()
            self.total += 1
            await asyncio.sleep(max(0.0, began + self.total / rate - time.monotonic()))
            if not replica.alive:
                self.problems.append(f"the operator ended with {replica.process.returncode}")
                break
            if failed := [task for task in (*beside, faults) if task.done()]:
                failed[0].result()
        faults.cancel()
        with suppress(asyncio.CancelledError):
            await faults
        ends = time.monotonic() + LAST_SECONDS
        while self.submitted and time.monotonic() < ends:  # noqa: ASYNC110 - servers decide
            await asyncio.sleep(0.5)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        if self.submitted:
            oldest = min(self.submitted, key=self.submitted.__getitem__)
            self.problems.append(f"{len(self.submitted)} runs have not ended, {oldest} first")

    async def _submit(self) -> None:
        name = f"flash-{self.total}-soak"
        while True:
            try:
                await self.scene.world.submit(name)
                break
            except ClusterError as error:
                if "already exists" in str(error):
                    break
                await asyncio.sleep(0.5)
        self.submitted[name] = time.monotonic()

    async def _train(self) -> None:
        """Be kubelet and trainer of every pod."""
        world = self.scene.world
        while True:
            with suppress(ClusterError, StoreError):
                for pod in await world.cluster.list("Pod", NAMESPACE):
                    name = pod["metadata"]["labels"].get(names.RUN_LABEL, "")
                    if pod["status"].get("phase") != "Pending" or name in self.trained:
                        continue
                    run = await world.run(name)
                    trainer = Trainer(world.cluster, world.store, run, pod, 1)
                    await asyncio.to_thread(self._write, trainer)
                    await Kubelet(world.cluster).end(pod, 0)
                    self.trained.add(name)
            await asyncio.sleep(0.3)

    def _write(self, trainer: Trainer) -> None:
        trainer.beat(1)
        trainer.commit(10)
        trainer.publish()
        trainer.conclude(0)

    async def _collect(self) -> None:
        """Note which runs have ended, and delete old ones."""
        cluster = self.scene.world.cluster
        ended: deque[str] = deque()
        while True:
            with suppress(ClusterError):
                jobs = Counter[str]()
                for job in await cluster.list("Job", NAMESPACE):
                    jobs[job["metadata"]["labels"].get(names.RUN_LABEL, "")] += 1
                self.problems += [f"{name} has {n} Jobs" for name, n in jobs.items() if n > 1]
                for run in await cluster.list(names.KIND, NAMESPACE):
                    name, phase = run["metadata"]["name"], run.get("status", {}).get("phase")
                    if name in self.submitted and phase in ("Succeeded", "Failed"):
                        self.seconds.append(time.monotonic() - self.submitted.pop(name))
                        ended.append(name)
                        if phase == "Failed":
                            failure = json.dumps(run["status"].get("failure"))
                            self.problems.append(f"{name} has failed: {failure}")
                while len(ended) > KEPT_RUNS:
                    await cluster.delete(names.KIND, NAMESPACE, ended[0])
                    self.trained.discard(ended.popleft())
            await asyncio.sleep(2.0)

    async def _go_wrong(self) -> None:
        """Let faults happen, one after the other."""
        rows = [row for row in ROWS if _fits(row)]
        while True:
            await asyncio.sleep(self.rng.uniform(*PAUSE))
            row = self.rng.choice(rows)
            lasts = self.rng.uniform(*(LASTS if row.where in (API, S3) else LASTS_STOPPED))
            self.faults[f"{row.where}: {row.name}"] += 1
            async with row.begin(self.scene):
                await asyncio.sleep(lasts)

    async def _measure(self, pid: int) -> None:
        began, last = time.monotonic(), 0
        print(
            "| minute | runs | ended | not yet | slowest s | faults | MB | descriptors | threads |"
        )
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        replica = self.scene.replicas[0]
        while True:
            reading = _read(pid)
            self.readings.append(reading)
            minute = int((reading.at - began) / 60)
            if minute != last:
                last = minute
                slowest = max(self.seconds[-60:], default=0.0)
                print(
                    f"| {minute} | {self.total} | {len(self.seconds)} | {len(self.submitted)} "
                    f"| {slowest:.0f} | {self.faults.total()} | {reading.megabytes:.0f} "
                    f"| {reading.descriptors} | {reading.threads} |",
                    flush=True,
                )
            self.problems += [late for late in replica.late_writes() if late not in self.problems]
            await asyncio.sleep(5.0)

    def verdict(self) -> int:
        """Print what must hold, and return 1 when something does not."""
        rest = self.readings[int(len(self.readings) * WARM_UP) :]
        half = len(rest) // 2
        before, after = (
            statistics.fmean(reading.megabytes for reading in part)
            for part in (rest[:half], rest[half:])
        )
        most = [max(reading.descriptors for reading in part) for part in (rest[:half], rest[half:])]
        for problem in self.problems[:10]:
            print(problem)
        seconds = sorted(self.seconds)
        print(f"{self.faults.total()} faults of {len(self.faults)} kinds")
        return sides.verdict(
            (f"{self.total} runs, {len(self.problems)} problems", not self.problems),
            (
                f"seconds from submission to success: median {statistics.median(seconds):.1f}, "
                f"slowest {seconds[-1]:.1f}",
                True,
            ),
            (
                f"memory after the first quarter: {before:.1f} MB, then {after:.1f} MB "
                f"(limit {before * GROWTH:.1f})",
                after <= before * GROWTH,
            ),
            (
                f"most descriptors: {most[0]}, then {most[1]} (limit {most[0] + MORE_DESCRIPTORS})",
                most[1] <= most[0] + MORE_DESCRIPTORS,
            ),
        )


def _fits(row: Row) -> bool:
    """Return whether a fault can happen to one operator at any time, and ends by itself."""
    if row.where == SERVERS:
        return "SIGSTOP" in row.name and "60 s" not in row.name
    return row.where in (API, S3) and "snapshot" not in row.name


def _read(pid: int) -> Reading:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return Reading(
        time.monotonic(),
        int(status["VmRSS"].split()[0]) / 1024,
        len(os.listdir(f"/proc/{pid}/fd")),
        int(status["Threads"]),
    )


@asynccontextmanager
async def _scene(folder: Path):
    """Start all servers and the operator."""
    minio = Minio(folder / "minio")
    minio.start()
    plane = start_control_plane(folder / "plane")
    try:
        install_crd(plane.kubeconfig)
        kubectl(plane.kubeconfig, "create", "namespace", NAMESPACE)
        store = minio.store("soak")
        push_environment(store)
        async with await Cluster.login(plane.kubeconfig) as cluster:
            world = World(cluster, store, platform(NAMESPACE, store.access), plane.kubeconfig)
            scene = Scene(world, Operators(folder, plane.kubeconfig, world), plane, minio)
            try:
                replica = scene.add("operator-0")
                await scene.until_ready(replica)
                for proxy in (replica.api, replica.storage):
                    proxy.seen = deque(proxy.seen, maxlen=5000)
                yield scene
            finally:
                scene.close()
    finally:
        plane.remove()
        minio.stop()


async def _main(minutes: float, rate: float, seed: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with _scene(Path(folder)) as scene:
            soak = Soak(scene, random.Random(seed))
            await soak.run(minutes, rate)
            code = soak.verdict()
    print(f"{sides.machine()}; --minutes {minutes:g} --rate {rate:g} --seed {seed}")
    return code


def main() -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1.0, help="runs a second")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    return asyncio.run(_main(given.minutes, given.rate, given.seed))


if __name__ == "__main__":
    sys.exit(main())
