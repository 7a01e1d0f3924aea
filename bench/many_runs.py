"""Memory of the operator with many live runs, and with a hostile one among them.

    python -m bench.many_runs [--runs 1000]

It starts an API server, MinIO and the operator as a process. All runs have a Job, and a heartbeat
that changes every 15 seconds. Then one run of another namespace writes as much as its bounds allow,
and beyond: files, manifests, claims, and heartbeats of the largest size. The resident memory of the
operator is read twice a second.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import sides
from bench.memory_meter import Meter
from flashrun.api import names
from flashrun.api.platform import EnvironmentSettings
from flashrun.api.records import Heartbeat, Manifest, Progress, RunIdentity
from flashrun.api.resource import FlashRun
from flashrun.cluster import Cluster
from flashrun.store import Store
from tests.controller.conftest import Operators
from tests.controller.stage import World, flash_run, now, platform, push_environment
from tests.servers import Minio, install_crd, start_control_plane

LIMIT_MIB = 256.0
"""Most memory of the operator."""
HOSTILE_MIB = 8.0
"""Most resident memory by which one run may make it grow, while it is read."""
TEAM, HOSTILE = "team-a", "team-b"
BEAT_SECONDS = 15.0


def beat(store: Store, runs: Iterable[FlashRun], step: int, metrics: dict[str, float]) -> None:
    """Write a heartbeat of each run."""

    def write(run: FlashRun) -> None:
        heartbeat = Heartbeat(
            run=RunIdentity(namespace=run.namespace, name=run.name, uid=run.uid),
            attempt=1,
            pod="pod",
            activity="Training",
            progress=Progress(step=step, total_steps=1000, metrics=metrics),
            commits=step,
            updated=now(),
        )
        store.put_json(names.heartbeat_key(run.uid), heartbeat)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, runs))


def attack(store: Store, run: FlashRun) -> None:
    """Write below the prefix of ``run`` what its bounds allow, and more."""
    identity = {"namespace": run.namespace, "name": run.name, "uid": run.uid}
    steps = [names.step_prefix(run.storage_prefix, 1, step) for step in range(2_200)]
    file = {"path": "adapter/" + "w" * 200, "size": 1, "sha256": "0" * 64}

    def manifest(step: int, files: int) -> bytes:
        record = {
            "kind": "checkpoint", "run": identity, "attempt": 1, "step": step,
            "created": now().isoformat(), "files": [file | {"path": f"{file['path']}{number}"}
                                                    for number in range(files)],
        }  # fmt: skip
        return json.dumps(record).encode()[: 2 * Manifest.max_bytes]

    objects = [
        *((f"{prefix}manifest.json", manifest(step, 3)) for step, prefix in enumerate(steps)),
        *((names.claim_key(run.storage_prefix, number), b"[" * 65_536) for number in range(1, 40)),
        *((f"{steps[0]}huge-{number}/manifest.json", b"{" * 8_000_000) for number in range(12)),
        *((f"{steps[0]}f{number}", b"") for number in range(4_000)),
    ]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda item: store.put_bytes(*item), objects))


async def measure(folder: Path, count: int) -> dict[str, float]:
    """Return the memory in MiB: idle, with all runs, and with the hostile one."""
    minio = Minio(folder / "minio")
    minio.start()
    plane = start_control_plane(folder / "plane")
    try:
        install_crd(plane.kubeconfig)
        store = minio.store("many-runs")
        push_environment(store)
        async with await Cluster.login(plane.kubeconfig) as cluster:
            both = EnvironmentSettings(owners={"org": (TEAM, HOSTILE)})
            settings = platform(TEAM, store.access)
            settings = settings.replace(namespaces=(TEAM, HOSTILE), environments=both)
            world = World(cluster, store, settings, plane.kubeconfig)
            operators = Operators(folder, plane.kubeconfig, world)
            try:
                return await _measure(world, operators, count)
            finally:
                operators.stop()
    finally:
        plane.remove()
        minio.stop()


async def _measure(world: World, operators: Operators, count: int) -> dict[str, float]:
    for name in (TEAM, HOSTILE):
        metadata = {"name": name}
        await world.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    process = operators.start()
    operators.wait(lambda: operators.leads(process), 60)
    await asyncio.sleep(10)
    meter, store = Meter(process.pid), world.store
    idle = meter.now()
    print(f"{idle:6.0f} MiB  idle", flush=True)

    await world.cluster.create(flash_run(HOSTILE, "flash-1-hostile"))
    began = time.monotonic()
    for first in range(0, count, 20):
        chunk = (flash_run(TEAM, f"flash-{n}-good") for n in range(first, min(first + 20, count)))
        await asyncio.gather(*map(world.cluster.create, chunk))
    runs = await _all_started(world, TEAM, count)
    [hostile] = await _all_started(world, HOSTILE, 1)
    print(f"{count} runs have a Job after {time.monotonic() - began:.0f} s", flush=True)

    async def let_beat(rounds: int, runs: list[FlashRun], metrics: dict[str, float]) -> float:
        meter.peak = 0.0
        for _ in range(rounds):
            nonlocal step
            step += 1
            await asyncio.to_thread(beat, store, runs, step, metrics)
            await asyncio.sleep(BEAT_SECONDS)
        return meter.peak

    step = 0
    few = {f"metric-{number}": 0.5 for number in range(10)}
    live = await let_beat(3, runs, few)
    print(f"{live:6.0f} MiB  with {count} live runs", flush=True)
    before = await let_beat(2, [*runs, hostile], few)
    await asyncio.to_thread(attack, store, hostile)
    many = {f"{number:03}{'m' * 100}": 0.5 for number in range(250)}
    asking = asyncio.create_task(_let_beat_alone(store, hostile, many))
    after = await let_beat(6, runs, few)
    asking.cancel()
    print(f"{after:6.0f} MiB  with a hostile one, {before:.0f} before", flush=True)
    assert process.poll() is None
    assert operators.ask(process, "/healthz") == (200, "ok")
    return {"idle": idle, "live": live, "before": before, "after": after}


async def _let_beat_alone(store: Store, run: FlashRun, metrics: dict[str, float]) -> None:
    step = 100
    while True:
        step += 1
        await asyncio.to_thread(beat, store, [run], step, metrics)
        await asyncio.sleep(3)


async def _all_started(world: World, namespace: str, count: int) -> list[FlashRun]:
    ready: Callable[[FlashRun], bool] = lambda run: run.status.phase == "Starting"  # noqa: E731
    while True:
        manifests = await world.cluster.list(names.KIND, namespace)
        runs = list(filter(ready, map(FlashRun.from_manifest, manifests)))
        if len(runs) == count:
            return runs
        await asyncio.sleep(5)


def main() -> int:
    """Measure once; print the memory, and return 1 when it is too much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory = asyncio.run(measure(Path(folder), given.runs))
    grown = memory["after"] - memory["before"]
    per_run = (memory["live"] - memory["idle"]) / given.runs * 1024
    print(sides.machine())
    return sides.verdict(
        (
            f"{memory['live']:.0f} MiB with {given.runs} live runs ({per_run:.0f} KiB each), "
            f"{memory['live'] / memory['idle']:.2f} times that of none",
            memory["live"] <= LIMIT_MIB,
        ),
        (
            f"{memory['after']:.0f} MiB with a hostile one, {grown:+.1f} MiB, "
            f"{memory['after'] / memory['before']:.2f} times that before",
            memory["after"] <= LIMIT_MIB and grown <= HOSTILE_MIB,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
