"""How fast the operator is, and what it costs, side by side with an earlier commit of it.

    python -m bench.operator [--runs 300] [--pairs 3] [--before COMMIT] [--idle 60]

Each measurement starts an API server with the Job controller, MinIO and one operator process. It
submits a few runs one after the other, then all others at once, and waits until every Job exists.
Without nodes all runs then wait for their pods, so the cost of waiting is measured, too.
Requests are those that the API server counts, without those of this program.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import sides
from flashrun.api import names
from flashrun.cluster import Cluster
from localcluster.controlplane import ControlPlane
from tests.controller.conftest import Operators
from tests.controller.stage import World, flash_run, platform, push_environment
from tests.servers import Minio, install_crd, kubectl, start_control_plane

TEAM = "team-a"
SINGLE_RUNS = 20
QUIET_SECONDS = 10.0
LONGEST_SECONDS = 600.0
READS = frozenset({"GET", "LIST"})
WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})
OURS = frozenset(
    {"flashruns", "jobs", "pods", "secrets", "configmaps", "services", "events", "leases"}
)
"""Resources whose objects the operator reads; the controllers read Jobs and pods by watches."""
_REQUESTS = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_METRIC = re.compile(r"^(flashrun_\w+) (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Requests = Counter[tuple[str, str]]


class Sample(NamedTuple):
    """One measurement of one side."""

    seconds: float
    """Until every run that was submitted at once has a Job."""
    single_ms: float
    """Median time from creating one run to its Job."""
    operator_ms: float
    """Processor time of the operator for each run, in milliseconds."""
    server_ms: float
    """The same of the API server."""
    reads: float
    """Requests for each run that read."""
    writes: float
    """Requests for each run that write, those of the Job controller included."""
    passes: float
    """Passes of the operator over each run."""
    idle_percent: float
    """Share of a core that the operator takes while all runs wait."""
    idle_reads: float
    """Requests that read in a minute, while all runs wait."""


class Processor:
    """Processor time of a process."""

    def __init__(self, pid: int | None) -> None:
        self._file = Path(f"/proc/{pid}/stat")

    def seconds(self) -> float:
        """Return the seconds that the process has used."""
        fields = self._file.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class OperatorBench:
    """One control plane with one operator, and the requests of this program to it."""

    def __init__(self, world: World, operators: Operators, plane: ControlPlane) -> None:
        self._world, self._operators, self._plane = world, operators, plane
        self._own: Requests = Counter()

    async def measure(self, source: Path, count: int, idle_seconds: float) -> Sample:
        """Measure the operator in the tree ``source`` with ``count`` runs."""
        process = self._operators.start(PYTHONPATH=str(source / "operator" / "src"))
        self._operators.wait(lambda: self._operators.leads(process), 60)
        self._operators.wait(lambda: self._operators.ask(process, "/readyz")[0] == 200, 60)
        await asyncio.sleep(QUIET_SECONDS)
        singles = [await self._single(f"flash-{number}-single") for number in range(SINGLE_RUNS)]
        await asyncio.sleep(QUIET_SECONDS)
        operator = Processor(process.pid)
        server = Processor(self._plane.daemons.pid("kube-apiserver"))
        before, passes = await self._requests(), self._passes(process)
        used, served = operator.seconds(), server.seconds()
        seconds = await self._all_at_once(count)
        await asyncio.sleep(QUIET_SECONDS)
        used, served = operator.seconds() - used, server.seconds() - served
        requests, passes = await self._requests(), self._passes(process) - passes
        requests.subtract(before)
        _print_requests(requests, count)

        idle, before = operator.seconds(), await self._requests()
        await asyncio.sleep(idle_seconds)
        idle = operator.seconds() - idle
        waiting = await self._requests()
        waiting.subtract(before)
        if problems := self._operators.ask(process, "/healthz")[1].removeprefix("ok"):
            raise SystemExit(f"the operator is not healthy: {problems}")
        return Sample(
            seconds=seconds,
            single_ms=1000 * statistics.median(singles),
            operator_ms=1000 * used / count,
            server_ms=1000 * served / count,
            reads=sum_of(requests, READS) / count,
            writes=sum_of(requests, WRITES) / count,
            passes=passes / count,
            idle_percent=100 * idle / idle_seconds,
            idle_reads=sum_of(waiting, READS) * 60 / idle_seconds,
        )

    def _passes(self, process: subprocess.Popen[bytes]) -> float:
        metrics = dict(_METRIC.findall(self._operators.ask(process, "/metrics")[1]))
        return float(metrics.get("flashrun_reconcile_duration_seconds_count", 0))

    async def _single(self, name: str) -> float:
        """Return the seconds from creating a run to its Job."""
        began = time.monotonic()
        created = await self._world.cluster.create(flash_run(TEAM, name))
        job = names.job_name(name, created["metadata"]["uid"], 0)
        # The API server has the Job; this process cannot wait for an event.
        while await self._world.cluster.metadata("Job", TEAM, job) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        seconds = time.monotonic() - began
        await asyncio.sleep(1)
        return seconds

    async def _all_at_once(self, count: int) -> float:
        """Return the seconds from the first of ``count`` creations to the last Job."""
        began = time.monotonic()
        runs = (flash_run(TEAM, f"flash-{number}-many") for number in range(count))
        await asyncio.gather(*map(self._world.cluster.create, runs))
        self._own["POST", "flashruns"] += count
        while await self._jobs() < count + SINGLE_RUNS:
            if time.monotonic() - began > LONGEST_SECONDS:
                raise SystemExit(f"not all runs have a Job; logs: {self._operators.logs()[-3000:]}")
            await asyncio.sleep(0.3)
        return time.monotonic() - began

    async def _jobs(self) -> int:
        number = 0
        async for _ in self._world.cluster.list_metadata("Job", TEAM):
            number += 1
        self._own["LIST", "jobs"] += max(1, -(-number // 100))
        return number

    async def _requests(self) -> Requests:
        """Return how many requests the API server has answered, without those of this program."""
        counted = await answered_requests(self._world.kubeconfig)
        counted.subtract(self._own)
        return counted


async def answered_requests(kubeconfig: Path, kinds: frozenset[str] = OURS) -> Requests:
    """Return how many requests an API server has answered, by verb and resource."""
    metrics = await asyncio.to_thread(kubectl, kubeconfig, "get", "--raw", "/metrics")
    counted: Requests = Counter()
    for labels, number in _REQUESTS.findall(metrics):
        label = dict(_LABEL.findall(labels))
        if label["resource"] in kinds:
            counted[label["verb"], label["resource"]] += int(float(number))
    return counted


def sum_of(requests: Requests, verbs: frozenset[str]) -> int:
    return sum(n for (verb, kind), n in requests.items() if verb in verbs and kind != "leases")


def _print_requests(requests: Requests, count: int) -> None:
    listed = sorted((key, number) for key, number in requests.items() if number > count / 50)
    words = (f"{verb} {kind} {number / count:.2f}" for (verb, kind), number in listed)
    print("  requests for each run:", ", ".join(words), flush=True)


async def measure(source: Path, count: int, idle_seconds: float) -> Sample:
    """Measure one side on servers of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        minio = Minio(folder / "minio")
        minio.start()
        plane = start_control_plane(folder / "plane")
        try:
            install_crd(plane.kubeconfig)
            kubectl(plane.kubeconfig, "create", "namespace", TEAM)
            store = minio.store("operator")
            push_environment(store)
            async with await Cluster.login(plane.kubeconfig) as cluster:
                world = World(cluster, store, platform(TEAM, store.access), plane.kubeconfig)
                operators = Operators(folder, plane.kubeconfig, world)
                try:
                    bench = OperatorBench(world, operators, plane)
                    return await bench.measure(source, count, idle_seconds)
                finally:
                    operators.stop()
        finally:
            plane.remove()
            minio.stop()


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Check out ``commit`` into a worktree of its own, for as long as the context lasts."""
    git = ["git", "-C", str(sides.ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "before"
        subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def main() -> int:
    """Measure both sides in turns; print medians and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of waiting")
    parser.add_argument("--before", default="HEAD~1", help="the commit of the other side")
    given = parser.parse_args()
    found: dict[str, list[Sample]] = {"now": [], "before": []}
    with tree_of(given.before) as before:
        trees = {"now": sides.ROOT, "before": before}
        for pair in range(given.pairs):
            for side in sides.turns(pair, trees):
                sample = asyncio.run(measure(trees[side], given.runs, given.idle))
                found[side].append(sample)
                values = zip(Sample._fields, sample, strict=True)
                print(f"{side:7}", ", ".join(f"{name} {value:.1f}" for name, value in values))
    print(f"{given.runs} runs, {given.pairs} pairs, before: {given.before}; {sides.machine()}")
    for name, now, then in zip(
        Sample._fields, zip(*found["now"], strict=True), zip(*found["before"], strict=True),
        strict=True,
    ):  # fmt: skip
        ratio = sides.ratio(now, then) if all(then) else float("nan")
        medians = statistics.median(now), statistics.median(then)
        print(f"{name:13} {medians[0]:9.1f} {medians[1]:9.1f}  ratio {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
