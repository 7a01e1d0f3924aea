"""A stage for the operator: a real API server and store, and tests that play everyone else.

``World`` runs passes in this process, one at a time, so that a test can look between any two.
``Kubelet`` says what a node would say of a pod. ``Trainer`` writes what a trainer writes, with the
credentials that the operator gave to that run and with no others.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flashrun.api import names
from flashrun.api.exits import Termination
from flashrun.api.platform import Platform
from flashrun.api.pod import TRAINER_CONTAINER
from flashrun.api.records import (
    CheckpointEvaluation,
    Claim,
    EnvironmentPointer,
    Evaluation,
    FileEntry,
    Heartbeat,
    Manifest,
    Progress,
    Result,
    RunIdentity,
    StorageAccess,
)
from flashrun.api.resource import FlashRun
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError
from flashrun.controller.bounded_answers import BoundedAnswers
from flashrun.controller.events import EventPoster
from flashrun.controller.known_runs import KnownRuns
from flashrun.controller.mirror_reader import MirrorReader
from flashrun.controller.namespace_usage import NamespaceUsage
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.observe import Observer
from flashrun.controller.poll import HeartbeatPoller
from flashrun.controller.queue import RunKey
from flashrun.controller.reconcile import Reconciler
from flashrun.controller.storage_access import AccessIssuer
from flashrun.store import Store
from flashrun.store_errors import StoreError
from tests.servers import kubectl

Object = dict[str, Any]
ENVIRONMENT = "org/env"
MODEL = "Qwen/Qwen3.5-0.8B"
POOLS = [
    {"name": "small", "vram": 24, "cost": 1},
    {"name": "large", "vram": 80, "cost": 4, "memory": "64Gi"},
]


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def spec(**changes: Any) -> Object:
    return {
        "model": MODEL,
        "algorithm": "sft",
        "environment": {"id": ENVIRONMENT},
        "train": {"epochs": 1},
    } | changes


def flash_run(namespace: str, name: str, **changes: Any) -> Object:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec(**changes),
    }


def platform(namespace: str, access: StorageAccess, **trainer: Any) -> Platform:
    return Platform.model_validate(
        {
            "namespaces": [namespace],
            "storage": {"endpoint": access.endpoint, "bucket": access.bucket},
            "trainer": {"image": "registry.example/trainer@sha256:1", **trainer},
            "pools": POOLS,
            "environments": {"owners": {ENVIRONMENT.partition("/")[0]: [namespace]}},
        }
    )


def push_environment(store: Store) -> None:
    pointer = EnvironmentPointer(digest="d" * 64, size=3, pushed=now())
    store.put_json(names.environment_latest_key(ENVIRONMENT), pointer)


@dataclass
class World:
    """One namespace with an operator that acts when a test says so."""

    cluster: Cluster
    store: Store
    platform: Platform
    kubeconfig: Path
    leading: bool = True
    ahead: timedelta = timedelta(0)
    """How much later it is than it is, for what takes long."""
    passing: bool = True
    """Whether ``ahead`` has passed; if not, only the wall clock of the operator is wrong."""
    operators_cluster: Cluster = field(init=False)
    """The connection of the operator."""
    heartbeats: HeartbeatPoller = field(init=False)
    known: KnownRuns = field(init=False)
    poster: EventPoster = field(init=False)
    reconciler: Reconciler = field(init=False)
    cache: ObjectCache | None = None
    """What the watches have shown; None: every pass reads everything."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new operator process: everything that was in memory is gone."""
        self.heartbeats = HeartbeatPoller(
            self.store, lambda: time.monotonic() + self.ahead.total_seconds() * self.passing
        )
        self.operators_cluster = self.cluster.with_answers(BoundedAnswers())
        mirror = MirrorReader(self.store, self.platform)
        usage = NamespaceUsage(
            self.operators_cluster,
            self.store,
            self.platform.budgets,
            lambda: datetime.now(UTC) + self.ahead,
        )
        observer = Observer(
            *(self.operators_cluster, self.store, self.heartbeats, mirror),
            cache=self.cache,
            usage=usage,
        )
        self.poster = EventPoster(self.operators_cluster, lambda: self.leading)
        self.known = KnownRuns(self.store, lambda: "installation")
        self.reconciler = Reconciler(
            self.operators_cluster,
            self.store,
            AccessIssuer(self.store, self.platform.storage, lambda: self.store.access),
            observer,
            self.known,
            self.poster,
            self.platform,
            leading=lambda: self.leading,
            clock=lambda: datetime.now(UTC) + self.ahead,
            cache=self.cache,
            usage=usage,
        )

    @property
    def namespace(self) -> str:
        return self.platform.namespaces[0]

    async def submit(self, name: str, **changes: Any) -> FlashRun:
        await self.cluster.create(flash_run(self.namespace, name, **changes))
        return await self.run(name)

    async def run(self, name: str) -> FlashRun:
        found = await self.cluster.get(names.KIND, self.namespace, name)
        return FlashRun.from_manifest(found)

    async def pass_over(self, name: str) -> float | None:
        """Let the operator look once."""
        await asyncio.to_thread(self.heartbeats.poll)
        try:
            return await self.reconciler.reconcile(RunKey(self.namespace, name))
        finally:
            await self.poster.drain()

    async def until(
        self, name: str, seen: Callable[[FlashRun], object], seconds: float = 20
    ) -> FlashRun:
        """Let the operator look until ``seen``; errors of a pass are retried as by its queue."""
        end = time.monotonic() + seconds
        trouble: Exception | None = None
        while True:
            try:
                await self.pass_over(name)
            except (ClusterError, StoreError) as error:
                trouble = error
            run = await self.run(name)
            if seen(run):
                return run
            if time.monotonic() > end:
                raise AssertionError(f"never seen; {trouble}; {run.status}")
            await asyncio.sleep(0.1)

    async def phase(self, name: str, wanted: str, seconds: float = 20) -> FlashRun:
        return await self.until(name, lambda run: run.status.phase == wanted, seconds)

    async def launched(self, name: str) -> FlashRun:
        """Wait until the status has the uid of the Job, so that another process knows it."""

        def has_uid(run: FlashRun) -> bool:
            return run.status.resolved is not None and bool(run.status.resolved.job_uid)

        return await self.until(name, has_uid)

    async def pod(self, name: str, job: int = 0, seconds: float = 20) -> Object:
        """Wait for the active pod of the run's Job ``job``."""
        end = time.monotonic() + seconds
        labels = {names.RUN_LABEL: name, names.JOB_NUMBER_LABEL: str(job)}
        while time.monotonic() < end:
            for pod in await self.cluster.list("Pod", self.namespace, labels):
                ended = pod["status"].get("phase") in ("Succeeded", "Failed")
                if not ended and "deletionTimestamp" not in pod["metadata"]:
                    return pod
            await asyncio.sleep(0.1)
        raise AssertionError(f"the Job controller has made no pod for {name}")

    async def jobs(self, name: str) -> list[int]:
        """The numbers of the run's Jobs."""
        uid = (await self.cluster.get(names.KIND, self.namespace, name))["metadata"]["uid"]
        found = await self.cluster.list("Job", self.namespace, {names.RUN_UID_LABEL: uid})
        numbers = [names.parse_job_number(name, uid, job["metadata"]["name"]) for job in found]
        return sorted(-1 if number is None else number for number in numbers)

    async def job(self, name: str, number: int = 0) -> Object:
        """The run's Job ``number``."""
        uid = (await self.run(name)).uid
        return await self.cluster.get("Job", self.namespace, names.job_name(name, uid, number))

    async def spec_config_map(self, name: str) -> Object:
        """The ConfigMap that the run's newest Job names."""
        pinned = (await self.run(name)).status.resolved
        assert pinned is not None
        job = await self.job(name, pinned.job)
        volumes = job["spec"]["template"]["spec"]["volumes"]
        [key] = [item["configMap"]["name"] for item in volumes if item["name"] == "spec"]
        return await self.cluster.get("ConfigMap", self.namespace, key)

    async def kubectl(self, *words: str, stdin: Object | None = None) -> None:
        """For the few kinds that the operator has nothing to do with."""
        text = None if stdin is None else json.dumps(stdin)
        await asyncio.to_thread(kubectl, self.kubeconfig, "-n", self.namespace, *words, stdin=text)

    async def bind(self, pod: Object, node: str) -> None:
        """Do the scheduler's part."""
        metadata = {"name": pod["metadata"]["name"], "namespace": self.namespace}
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{metadata['name']}/binding"
        await self.kubectl("create", "--raw", path, "-f", "-", stdin=binding)

    async def control(self, name: str, **switches: Any) -> None:
        body = {"spec": {"control": switches}}
        await self.cluster.patch(names.KIND, self.namespace, name, body)

    async def trainer(self, name: str, job: int = 0, attempt: int = 1) -> "Trainer":
        """Start the run's pod and return the trainer in it."""
        pod = await self.pod(name, job)
        await Kubelet(self.cluster).start(pod)
        key = names.storage_secret_name(name, (await self.run(name)).uid)
        text = await self.cluster.secret_value(self.namespace, key, names.ACCESS_KEY)
        store = Store(StorageAccess.model_validate_json(text))
        return Trainer(self.cluster, store, await self.run(name), pod, attempt)


async def wait_for_object(world: World, kind: str, name: str) -> Object:
    """Wait until an object is in the namespace of the runs; return it."""
    end = time.monotonic() + 60
    while (found := await world.cluster.find(kind, world.namespace, name)) is None:
        assert time.monotonic() < end, f"{kind} {name} does not exist"
        await asyncio.sleep(0.1)
    return found


async def wait_for_phase(world: World, name: str, phase: str, seconds: float = 30) -> None:
    """Wait until an operator in a process of its own has written ``phase``.

    ``Starting`` is written a moment before the Job exists; the uid of the Job follows.
    """
    end = time.monotonic() + seconds

    def is_seen(run: FlashRun) -> bool:
        resolved = run.status.resolved
        launched = resolved is not None and resolved.job_uid != ""
        return run.status.phase == phase and (launched or phase != "Starting")

    while not is_seen(run := await world.run(name)):
        assert time.monotonic() < end, run.status
        await asyncio.sleep(0.1)


@dataclass
class Kubelet:
    """Says of pods what a node would say; ``added`` are containers of other programs."""

    cluster: Cluster
    added: dict[str, Object] = field(default_factory=dict)
    """Name of the container → its state."""

    async def start(self, pod: Object) -> None:
        moment = _stamp(now())
        await self.say(pod, "Running", {"running": {"startedAt": moment}})

    async def end(
        self,
        pod: Object,
        code: int,
        *,
        reason: str = "",
        message: str = "",
        conditions: tuple[Object, ...] = (),
        worked: timedelta = timedelta(0),
        phase: str = "",
        **status: Any,
    ) -> None:
        """End the trainer after it has ``worked``, and the pod with it unless it has a phase."""
        state = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": message,
            "startedAt": _stamp(now() - worked),
            "finishedAt": _stamp(now()),
        }
        phase = phase or ("Succeeded" if code == 0 else "Failed")
        await self.say(pod, phase, {"terminated": state}, conditions, **status)

    async def waits(self, pod: Object, reason: str, message: str = "") -> None:
        await self.say(pod, "Pending", {"waiting": {"reason": reason, "message": message}})

    async def say(
        self,
        pod: Object,
        phase: str,
        state: Object,
        conditions: tuple[Object, ...] = (),
        **words: Any,
    ) -> None:
        """Write the status of a pod whose trainer is in ``state``."""
        done = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        init = [_container(name, done) for name in ("model", "packages")]
        containers = {**self.added, TRAINER_CONTAINER: state}  # a kubelet sorts them by name
        status: Object = {
            "phase": phase,
            "startTime": _stamp(now()),
            "initContainerStatuses": [] if "waiting" in state else init,
            "containerStatuses": [_container(*item) for item in sorted(containers.items())],
            **words,
        }
        if conditions:
            status["conditions"] = list(conditions)
        metadata = pod["metadata"]
        await self.cluster.patch_status("Pod", metadata["namespace"], metadata["name"], status)


def _container(name: str, state: Object) -> Object:
    return {
        "name": name,
        "state": state,
        "ready": "running" in state,
        "restartCount": 0,
        "image": "trainer",
        "imageID": "",
    }


@dataclass
class Trainer:
    """Writes what a trainer writes."""

    cluster: Cluster
    store: Store
    run: FlashRun
    pod: Object
    attempt: int

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def identity(self) -> RunIdentity:
        return RunIdentity(namespace=self.run.namespace, name=self.run.name, uid=self.run.uid)

    def claim(self) -> None:
        claim = Claim(
            attempt=self.attempt,
            pod=self.name,
            pod_uid=self.pod["metadata"]["uid"],
            started=now(),
        )
        self.store.create_json(names.claim_key(self.run.storage_prefix, self.attempt), claim)

    def beat(self, step: int, commits: int = 0, **changes: Any) -> None:
        heartbeat = Heartbeat(
            run=self.identity,
            attempt=self.attempt,
            pod=self.name,
            activity="Training",
            progress=Progress(step=step, total_steps=10, metrics={"loss": 1 / (step + 1)}),
            commits=commits,
            updated=now(),
        )
        self.store.put_json(names.heartbeat_key(self.run.uid), heartbeat.model_copy(update=changes))

    def commit(self, step: int, evaluation: CheckpointEvaluation | None = None) -> str:
        """Upload a checkpoint; returns its prefix."""
        prefix = names.step_prefix(self.run.storage_prefix, self.attempt, step)
        place = {"attempt": self.attempt, "step": step}
        self._upload(prefix, "checkpoint", evaluation=evaluation, **place)
        return prefix

    def publish(self) -> None:
        self._upload(names.adapter_prefix(self.run.storage_prefix), "adapter")

    def conclude(
        self,
        code: int,
        termination: Termination | None = None,
        evaluation: Evaluation | None = None,
    ) -> None:
        result = Result(
            evaluation=evaluation,
            run=self.identity,
            attempt=self.attempt,
            exit_code=code,
            termination=termination,
            finished=now(),
        )
        self.store.create_json(names.result_key(self.run.storage_prefix), result)
        self.store.delete([names.heartbeat_key(self.run.uid)])

    async def succeed(self) -> None:
        """Do all that a successful trainer does."""
        self.claim()
        self.commit(10)
        self.publish()
        self.conclude(0)
        await Kubelet(self.cluster).end(self.pod, 0)

    async def end(self, code: int, **said: Any) -> None:
        await Kubelet(self.cluster).end(self.pod, code, **said)

    def _upload(self, prefix: str, kind: Any, **fields: Any) -> None:
        data = f"weights of {prefix}".encode()
        path = "adapter/adapter_model.safetensors"
        self.store.put_bytes(prefix + path, data)
        entry = FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        manifest = Manifest(
            kind=kind, run=self.identity, base_model=MODEL, created=now(), files=(entry,), **fields
        )
        self.store.create_json(prefix + names.MANIFEST, manifest)


def _stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
