"""Kueue, played: the real definitions of its kinds in the API server, and what its manager does.

The rules are those of its reconciler of Jobs (Kueue 0.17, ``pkg/controller/jobframework``): a Job
runs while its Workload is admitted and is suspended while it is not, whoever has changed that; a
Workload that is evicted loses its quota when its Job has no pods; a Job that is stopped loses its
start time.
"""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml

from flashrun.api import names
from flashrun.api.resource import FlashRun
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Conflict, NotFound
from localcluster.toolchain import GO_ENV
from tests.controller.stage import Object, Trainer, World
from tests.servers import kubectl, wait_until_served

RUN = "flash-1-0a1b2c3d"
QUEUE = "team-queue"
MODULE = "sigs.k8s.io/kueue@v0.17.0"
VERSIONS = ("v1beta1", "v1beta2")
CRDS = ("workloads", "localqueues")
NO_QUOTA = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in "
    "flavor default, 1 more needed"
)


def module_folder() -> Path:
    """The folder of Kueue's Go module."""
    done = subprocess.run(
        ["go", "mod", "download", "-json", MODULE],
        env={**os.environ, **GO_ENV},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(json.loads(done.stdout)["Dir"])


def definitions(served: tuple[str, ...] = VERSIONS) -> Object:
    """Kueue's own definitions of its kinds, from its Go module, with these versions served."""
    folder = module_folder() / "config/components/crd/bases"
    items = []
    for plural in CRDS:
        text = (folder / f"kueue.x-k8s.io_{plural}.yaml").read_text()
        crd = yaml.load(text, yaml.CSafeLoader)
        crd["spec"]["versions"] = [
            {**version, "served": True, "storage": version["name"] == served[-1]}
            for version in crd["spec"]["versions"]
            if version["name"] in served
        ]
        items.append(crd)
    return {"apiVersion": "v1", "kind": "List", "items": items}


@contextmanager
def kueue_kinds(kubeconfig: Path, served: tuple[str, ...] = VERSIONS) -> Iterator[None]:
    """Install the kinds until the end of the context."""
    text = json.dumps(definitions(served))
    kubectl(kubeconfig, "create", "-f", "-", stdin=text)
    try:
        wait_until_served(kubeconfig, ",".join(f"{plural}.kueue.x-k8s.io" for plural in CRDS))
        yield
    finally:
        kubectl(kubeconfig, "delete", "-f", "-", stdin=text)


@dataclass
class PlayedKueue:
    """Kueue's manager for one namespace; ``quota`` is the number of Jobs that it admits."""

    cluster: Cluster
    kubeconfig: Path
    namespace: str
    version: str = VERSIONS[-1]
    quota: int = 1
    steps: int = 0
    started: list[str] = field(default_factory=list)
    """Names of Jobs, once each time that it let one go on."""

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Act on every change until the end of the context."""
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _work(self) -> None:
        while True:
            for job in await self.cluster.list("Job", self.namespace):
                if names.QUEUE_LABEL in job["metadata"].get("labels", {}):
                    with contextlib.suppress(NotFound, Conflict):
                        await self._step(job)
            self.steps += 1
            await asyncio.sleep(0.05)

    async def looks_again(self, times: int = 3) -> None:
        """Wait until it has looked at every Job so often, from now on."""
        wanted = self.steps + times + 1
        while self.steps < wanted:  # noqa: ASYNC110 - every look counts, not only the last
            await asyncio.sleep(0.05)

    async def workload(self, job: Object) -> Object | None:
        """The Workload of a Job."""
        labels = {names.QUEUED_JOB_LABEL: job["metadata"]["uid"]}
        found = await self.cluster.list("Workload", self.namespace, labels)
        return found[0] if found else None

    async def evict(self, job: Object, reason: str, message: str) -> None:
        """Take the quota of a Job, which waits for quota again."""
        self.quota = 0
        workload = await self.workload(job)
        assert workload is not None
        await self._set(workload, Evicted=("True", reason, message))

    async def _step(self, job: Object) -> None:
        workload = await self.workload(job)
        if workload is None:
            await self._create(job)
            return
        active = workload["spec"].get("active", True)
        if _is(job, "Complete") or _is(job, "Failed"):
            await self._set(workload, Finished=("True", "Succeeded", "The Job is finished"))
        elif not active and not _is(workload, "Evicted"):
            await self._set(
                workload, Evicted=("True", "Deactivated", "The workload is deactivated")
            )
        elif _is(workload, "Evicted") and (_is(workload, "QuotaReserved") or not active):
            await self._stop(job)
            if not job.get("status", {}).get("active") and _is(workload, "QuotaReserved"):
                message = _condition(workload, "Evicted")["message"]
                lost = ("False", "Pending", message)
                await self._set(workload, QuotaReserved=lost, Admitted=lost)
        elif not _is(workload, "Admitted"):
            await self._stop(job)
            await self._admit(workload)
        elif job["spec"].get("suspend"):
            self.started.append(job["metadata"]["name"])
            await self._patch_job(job, {"suspend": False})

    async def _admit(self, workload: Object) -> None:
        """Admit a Workload if there is quota."""
        others = await self.cluster.list("Workload", self.namespace)
        running = [item for item in others if _is(item, "Admitted") and not _is(item, "Finished")]
        if len(running) < self.quota:
            reserved = ("True", "QuotaReserved", "Quota reserved in ClusterQueue team")
            await self._set(
                workload,
                QuotaReserved=reserved,
                Admitted=("True", "Admitted", "The workload is admitted"),
                Evicted=("False", "QuotaReserved", "Previously: evicted"),
            )
        elif (_condition(workload, "QuotaReserved") or {}).get("message") != NO_QUOTA:
            await self._set(workload, QuotaReserved=("False", "Pending", NO_QUOTA))

    async def _stop(self, job: Object) -> None:
        """Suspend a Job and forget when it started."""
        if not job["spec"].get("suspend"):
            await self._patch_job(job, {"suspend": True})
        if (job.get("status") or {}).get("startTime"):
            name = job["metadata"]["name"]
            await self.cluster.patch_status("Job", self.namespace, name, {"startTime": None})

    async def _patch_job(self, job: Object, spec: Object) -> None:
        await self.cluster.patch("Job", self.namespace, job["metadata"]["name"], {"spec": spec})

    async def _set(self, workload: Object, **conditions: tuple[str, str, str]) -> None:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        kept = {item["type"]: item for item in (workload.get("status") or {}).get("conditions", [])}
        for kind, (status, reason, message) in conditions.items():
            words = {"status": status, "reason": reason, "message": message}
            kept[kind] = {"type": kind, **words, "lastTransitionTime": moment}
        name, status = workload["metadata"]["name"], {"conditions": list(kept.values())}
        await self.cluster.patch_status("Workload", self.namespace, name, status)

    async def _create(self, job: Object) -> None:
        metadata = job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "controller": True}
        owner |= {"name": metadata["name"], "uid": metadata["uid"]}
        workload = {
            "apiVersion": f"kueue.x-k8s.io/{self.version}",
            "kind": "Workload",
            "metadata": {
                "name": f"job-{metadata['name']}",
                "labels": {names.QUEUED_JOB_LABEL: metadata["uid"]},
                "ownerReferences": [owner],
            },
            "spec": {
                "queueName": metadata["labels"][names.QUEUE_LABEL],
                "podSets": [{"name": "main", "count": 1, "template": job["spec"]["template"]}],
            },
        }
        words = ("-n", self.namespace, "create", "-f", "-")
        await asyncio.to_thread(kubectl, self.kubeconfig, *words, stdin=json.dumps(workload))


def _condition(manifest: Object, kind: str) -> Object | None:
    conditions = (manifest.get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item["type"] == kind), None)


def _is(manifest: Object, kind: str) -> bool:
    found = _condition(manifest, kind)
    return found is not None and found["status"] == "True"


def message_of(run: FlashRun) -> str:
    ready = run.status.condition("Ready")
    assert ready is not None
    return ready.message


def is_suspended(job: Object) -> bool:
    return bool(job["spec"].get("suspend"))


async def start_training(world: World) -> Trainer:
    """Submit a run and let it train."""
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    trainer = await world.trainer(RUN)
    await world.bind(trainer.pod, "node-1")  # on a node, a pod has time to end
    trainer.claim()
    await world.phase(RUN, "Running")
    return trainer


async def save_and_end(world: World, trainer: Trainer) -> None:
    """Do what a trainer does that is asked to stop, and its kubelet."""
    trainer.commit(5)
    await trainer.end(40)
    await world.until(RUN, lambda run: any(item.exit_code == 40 for item in run.status.attempts))
    await world.cluster.delete("Pod", world.namespace, trainer.name, grace_seconds=0)
