"""What one run's bytes leave in the operator's memory, for each way in.

    python -m bench.floods [--only WAY] [--rounds 2] [--set VARIABLE=VALUE]

It starts an API server, MinIO and the operator as a process, with the allocator's settings of the
image. For each way, a run of its own writes as much as is read of it, and beyond. What the process
has allocated is read before, at its peak, and as the least of the 25 seconds after.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, Final

from bench import sides
from bench.memory_meter import Meter
from flashrun.api import names
from flashrun.api.platform import EnvironmentSettings
from flashrun.cluster import Cluster
from flashrun.cluster_errors import NotFound
from flashrun.store import Store
from tests.controller.conftest import Operators
from tests.controller.large_objects import PARAMS, large_labels, large_run, post
from tests.controller.stage import (
    ENVIRONMENT,
    Kubelet,
    Trainer,
    World,
    now,
    platform,
    push_environment,
    wait_for_phase,
)
from tests.servers import Minio, install_crd, start_control_plane

TEAM: Final = "team-flood"
_numbers = count(1)


def quiet(meter: Meter) -> float:
    """Return the least of the following 25 seconds, in MiB."""
    least = meter.now()
    for _ in range(500):
        time.sleep(0.05)
        least = min(least, meter.now())
    return least


class Stage:
    """A team and the operator that serves it."""

    def __init__(self, world: World) -> None:
        self.world, self.store = world, world.store

    async def trainer(self, beats: bool = True, **changes: Any) -> Trainer:
        """Return the trainer of a new run."""
        name = f"flash-{next(_numbers)}-flood"
        await self.world.submit(name, **changes)
        await wait_for_phase(self.world, name, "Starting", 120)
        trainer = await self.world.trainer(name)
        if beats:
            trainer.beat(1)
            await wait_for_phase(self.world, name, "Running", 120)
        return trainer


def put_all(store: Store, objects: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(store.put_bytes, objects, objects.values()))


def beat_bytes(trainer: Trainer, step: int, **changes: Any) -> bytes:
    record = {
        "run": trainer.identity.model_dump(), "attempt": 1, "pod": trainer.name,
        "activity": "Training", "progress": {"step": step, "total_steps": 9_999_999},
        "updated": now().isoformat(), "commits": step,
    }  # fmt: skip
    return json.dumps({**record, **changes}).encode()


async def beats(stage: Stage, trainer: Trainer, metrics: dict[str, float]) -> None:
    for step in range(8):
        progress = {"step": step + 2, "total_steps": 9_999_999, "metrics": metrics}
        content = beat_bytes(trainer, step + 2, progress=progress)
        trainer.store.put_bytes(names.heartbeat_key(trainer.run.uid), content)
        await asyncio.sleep(3.2)


async def long_metric_names(stage: Stage, trainer: Trainer) -> None:
    await beats(stage, trainer, {f"{n:03}{'m' * 235}": 0.5 for n in range(250)})


async def many_values(stage: Stage, trainer: Trainer) -> None:
    await beats(stage, trainer, {f"m{n}": 0.5 for n in range(4_000)})


async def commit_news(trainer: Trainer, step: int) -> None:
    key = names.heartbeat_key(trainer.run.uid)
    trainer.store.put_bytes(key, beat_bytes(trainer, step))
    await asyncio.sleep(8)


def manifest(trainer: Trainer, step: int, files: int, path: str) -> bytes:
    entries = [{"path": f"{path}{n}", "size": 1, "sha256": "0" * 64} for n in range(files)]
    record = {
        "kind": "checkpoint", "run": trainer.identity.model_dump(), "attempt": 1, "step": step,
        "created": now().isoformat(), "files": entries,
    }  # fmt: skip
    return json.dumps(record).encode()


def at(trainer: Trainer, step: int) -> str:
    return names.step_prefix(trainer.run.storage_prefix, 1, step)


async def many_manifests(stage: Stage, trainer: Trainer) -> None:
    put_all(trainer.store, {at(trainer, n) + names.MANIFEST: manifest(trainer, n, 3, "w" * 100)
                            for n in range(1, 1500)})  # fmt: skip
    await commit_news(trainer, 1500)


async def large_manifests(stage: Stage, trainer: Trainer) -> None:
    content = manifest(trainer, 1, 1000, "w" * 120)
    assert len(content) < 262_144, len(content)
    put_all(trainer.store, {at(trainer, n) + names.MANIFEST: manifest(trainer, n, 1000, "w" * 120)
                            for n in range(1, 30)})  # fmt: skip
    await commit_news(trainer, 31)
    await commit_news(trainer, 32)


async def huge_manifests(stage: Stage, trainer: Trainer) -> None:
    data = b"[" + b"0," * (4 * 1024 * 1024)
    put_all(trainer.store, {at(trainer, n) + names.MANIFEST: data for n in range(1, 13)})
    await commit_news(trainer, 13)


async def broken_manifests(stage: Stage, trainer: Trainer) -> None:
    content = manifest(trainer, 1, 1000, "w" * 120).replace(b'"size"', b'"sise"')
    put_all(trainer.store, {at(trainer, n) + names.MANIFEST: content for n in range(1, 30)})
    await commit_news(trainer, 31)


async def many_files(stage: Stage, trainer: Trainer) -> None:
    prefix = at(trainer, 1) + "adapter/" + "x" * 200 + "/" + "y" * 200 + "/" + "%" * 200
    put_all(trainer.store, {f"{prefix}{n}": b"" for n in range(3_000)})
    await commit_news(trainer, 2)


async def claims(stage: Stage, trainer: Trainer) -> None:
    flood = b'{"attempt": 1, "pod": "' + b"p" * 65_000 + b'"}'
    put_all(trainer.store, {names.claim_key(trainer.run.storage_prefix, n): flood
                            for n in range(2, 80)})  # fmt: skip
    await commit_news(trainer, 2)


async def result(stage: Stage, trainer: Trainer) -> None:
    metrics = {f"{n:03}{'m' * 200}": 0.5 for n in range(250)}
    record = {
        "run": trainer.identity.model_dump(), "attempt": 1, "exit_code": 0, "metrics": metrics,
        "finished": now().isoformat(),
        "progress": {"step": 1, "total_steps": 2, "metrics": metrics},
    }  # fmt: skip
    key = names.result_key(trainer.run.storage_prefix)
    trainer.store.put_bytes(key, json.dumps(record).encode())
    await commit_news(trainer, 2)


async def terminations(stage: Stage, trainer: Trainer) -> None:
    message = json.dumps({"reason": "RewardFailed", "message": "m" * 2_000, "hint": "h" * 1_900})
    for _ in range(60):
        [pod] = await fake_pods(stage, trainer, 1, {})
        with contextlib.suppress(NotFound):  # the operator deletes pods that are not the run's
            await Kubelet(stage.world.cluster).end(pod, 70, message=message)
    await trainer.end(70, message=message)
    await asyncio.sleep(4)


async def fake_pods(
    stage: Stage, trainer: Trainer, number: int, annotations: dict[str, str], **spec: Any
) -> list[dict[str, Any]]:
    labels = trainer.pod["metadata"]["labels"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "controller": True, "name": "x", "uid": "x"}
    made = []
    for _ in range(number):
        metadata = {
            "name": f"fake-{next(_numbers)}", "namespace": TEAM, "labels": labels,
            "ownerReferences": [owner], "annotations": annotations,
        }  # fmt: skip
        body = {"containers": [{"name": "trainer", "image": "i"}], **spec}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}
        made.append(await stage.world.cluster.create(pod))
    return made


async def annotations(stage: Stage, trainer: Trainer) -> None:
    note = {"note": "x" * 250_000}
    await fake_pods(stage, trainer, 8, note)
    for number in range(8):
        body = {"metadata": {"annotations": {"note": f"{number}" * 250_000}}}
        name = trainer.run.name
        await stage.world.cluster.patch(names.KIND, TEAM, name, body)
        job = names.job_name(name, trainer.run.uid, 0)
        await stage.world.cluster.patch("Job", TEAM, job, body)
        await asyncio.sleep(0.5)
    await asyncio.sleep(3)


async def large_pods(stage: Stage, trainer: Trainer) -> None:
    labels = large_labels(trainer.pod["metadata"]["labels"])
    owner = {"apiVersion": "batch/v1", "kind": "Job", "controller": True, "name": "x", "uid": "x"}
    for _ in range(12):
        metadata = {
            "name": f"large-{next(_numbers)}", "namespace": TEAM, "labels": labels,
            "ownerReferences": [owner],
        }  # fmt: skip
        spec = {"containers": [{"name": "c", "image": "i"}]}
        await asyncio.to_thread(
            post, stage.world, "Pod", json.dumps({"metadata": metadata, "spec": spec})
        )
    await asyncio.sleep(5)


async def large_runs(stage: Stage, trainer: Trainer) -> None:
    for case in PARAMS:
        text = large_run(TEAM, case).replace("flash-1-", f"flash-{next(_numbers)}-")
        await asyncio.to_thread(post, stage.world, names.KIND, text)
    await asyncio.sleep(5)


async def run_with_large_params(stage: Stage, trainer: Trainer) -> None:
    params = {"a": "x" * 40_000, "b": list(range(3_000))}  # almost as many as a spec may have
    environment = {"id": ENVIRONMENT, "params": params}
    for _ in range(3):
        await stage.trainer(environment=environment)
    await asyncio.sleep(3)


async def secret(stage: Stage, trainer: Trainer) -> None:
    name = f"keys-{next(_numbers)}"
    data = {"SERVICE_API_KEY": "x" * 1_000_000}
    metadata = {"name": name, "namespace": TEAM, "labels": {names.SECRETS_LABEL: "true"}}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
    await stage.world.cluster.create(body)
    listed = {"id": ENVIRONMENT, "secrets": ["SERVICE_API_KEY"]}
    await stage.trainer(environment=listed, secretRefs=[{"name": name}])


async def many_events(stage: Stage, trainer: Trainer) -> None:
    name = f"flash-{next(_numbers)}-waits"
    await stage.world.submit(name)
    await wait_for_phase(stage.world, name, "Starting", 120)
    pod = await stage.world.pod(name)
    subject = {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": TEAM,
               "uid": pod["metadata"]["uid"], "apiVersion": "v1"}  # fmt: skip
    for number in range(200):
        await stage.world.cluster.create(
            {
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"name": f"event-{next(_numbers)}", "namespace": TEAM,
                             "annotations": {"note": "x" * 100_000}},
                "involvedObject": subject, "type": "Warning", "reason": "FailedScheduling",
                "message": f"{number}" * 300,
                "lastTimestamp": now().isoformat().replace("+00:00", "Z"),
            }
        )  # fmt: skip
    await asyncio.sleep(12)


async def run_copy(stage: Stage, trainer: Trainer) -> None:
    """The copy of a run is read when the run was deleted."""
    key = names.run_record_key(trainer.run.storage_prefix)
    content = stage.store.get_bytes(key)
    record = json.loads(content)
    record["spec"]["environment"]["params"] = {"a": list(range(30_000)), "b": "x" * 1_500_000}
    stage.store.put_bytes(key, json.dumps(record).encode())
    await stage.world.cluster.delete(names.KIND, TEAM, trainer.run.name)
    await asyncio.sleep(8)


async def pointer(stage: Stage, trainer: Trainer) -> None:
    key = names.environment_latest_key("org/other")
    files = {"digest": "d" * 64, "size": 3, "pushed": now().isoformat(), "x": "x" * 60_000}
    stage.store.put_bytes(key, json.dumps(files).encode())
    for _ in range(6):
        name = f"flash-{next(_numbers)}-pointer"
        await stage.world.submit(name, environment={"id": "org/other"})
    await asyncio.sleep(6)


async def plain(stage: Stage, trainer: Trainer) -> None:
    """Nothing hostile: what a few runs that finish leave."""
    for _ in range(5):
        other = await stage.trainer()
        await other.succeed()
        await wait_for_phase(stage.world, other.run.name, "Succeeded", 120)
    await asyncio.sleep(4)


WAYS: Final[dict[str, Callable[[Stage, Trainer], Awaitable[None]]]] = {
    way.__name__: way
    for way in (
        plain, long_metric_names, many_values, many_manifests, large_manifests, huge_manifests,
        broken_manifests, many_files, claims, result, terminations, annotations, large_pods,
        large_runs, run_with_large_params, secret, many_events, run_copy, pointer,
    )
}  # fmt: skip


async def measure(folder: Path, only: list[str], rounds: int, settings: dict[str, str]) -> None:
    """Print for each way what is left, and the peak, in MiB."""
    minio = Minio(folder / "minio")
    minio.start()
    plane = start_control_plane(folder / "plane")
    try:
        install_crd(plane.kubeconfig)
        store = minio.store("floods")
        push_environment(store)
        async with await Cluster.login(plane.kubeconfig) as cluster:
            both = EnvironmentSettings(owners={"org": (TEAM,)})
            made = platform(TEAM, store.access).replace(environments=both)
            world = World(cluster, store, made, plane.kubeconfig)
            metadata = {"name": TEAM}
            await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
            operators = Operators(folder, plane.kubeconfig, world)
            process = operators.start(**settings)
            try:
                await asyncio.to_thread(operators.wait, lambda: operators.leads(process), 300)
                meter = Meter(process.pid, every=0.005, files=False)
                stage = Stage(world)
                await plain(stage, await stage.trainer())
                for name in only or WAYS:
                    for number in range(rounds):
                        trainer = await stage.trainer()
                        before = await asyncio.to_thread(quiet, meter)
                        meter.peak = 0.0
                        await WAYS[name](stage, trainer)
                        peak = meter.peak
                        after = await asyncio.to_thread(quiet, meter)
                        print(
                            f"{name:24} {number} {before:7.1f} peak {peak - before:+6.1f} "
                            f"left {after - before:+6.1f}",
                            flush=True,
                        )
                        assert process.poll() is None
            finally:
                operators.stop()
                if "Traceback" in operators.logs():
                    print(operators.logs()[-3000:])
    finally:
        plane.remove()
        minio.stop()


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=[*WAYS])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = dict(item.split("=", 1) for item in given.set)
        asyncio.run(measure(Path(folder), given.only or [], given.rounds, settings))
    print(sides.machine())
    return 0


if __name__ == "__main__":
    sys.exit(main())
