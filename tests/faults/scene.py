"""An operator behind two proxies, runs that it carries to their ends, and what must hold then."""

import asyncio
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from flashrun.api import names
from flashrun.api.platform import Platform
from flashrun.api.pod import POD_VARIABLE
from flashrun.api.records import Ending
from flashrun.cluster_errors import ClusterError
from flashrun.controller.lease import HOLD_SECONDS
from flashrun.controller.served_namespaces import WATCHED_KINDS
from localcluster.controlplane import ControlPlane
from tests.controller.conftest import Operators
from tests.controller.stage import Kubelet, Trainer, World, wait_for_object
from tests.faults.exchange import Seen
from tests.faults.proxy import FaultProxy
from tests.servers import Minio

TRANSIT_SECONDS: Final = 1.0
"""How long a request may take from the operator to the proxy on a busy machine; a standby takes
over 1.5 seconds after the holder has stopped."""


@dataclass
class _Settings:
    """What an operator is started with."""

    platform: Platform


@dataclass
class Replica:
    """One pod of the operator: its process, and the proxies before its servers."""

    pod: str
    api: FaultProxy
    storage: FaultProxy
    operators: Operators
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0

    @property
    def seen(self) -> list[Seen]:
        return sorted([*self.api.seen, *self.storage.seen], key=lambda seen: seen.exchange.at)

    def writes(self) -> list[Seen]:
        """What it has written: to the API server, the lease apart, and to storage."""
        return [seen for seen in self.seen if seen.exchange.is_write and seen.executed]

    def late_writes(self) -> list[str]:
        """Writes that came when it could not hold the lease any more."""
        renewals = [
            seen.exchange.at
            for seen in [*self.api.seen]  # the proxy's thread adds to it
            if seen.exchange.is_lease and seen.exchange.method != "GET" and seen.executed
        ]
        late = []
        forgotten = len(self.api.seen) == getattr(self.api.seen, "maxlen", None)
        known_from = min(renewals, default=0.0) if forgotten else 0.0
        for seen in self.seen:
            if not seen.exchange.is_write or seen.exchange.at < known_from:
                continue
            last = max((at for at in renewals if at <= seen.exchange.at), default=0.0)
            if seen.exchange.at - last > HOLD_SECONDS + TRANSIT_SECONDS:
                late.append(f"{seen.exchange} {seen.exchange.at - last:.1f} s after a renewal")
        return late

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Scene:
    """A namespace, its replicas, and what faults may do to them and to the servers."""

    world: World
    """Reaches the servers without a proxy."""
    operators: Operators
    plane: ControlPlane
    minio: Minio
    replicas: list[Replica] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def add(self, pod: str) -> Replica:
        """Add a replica with proxies of its own, and start it."""
        authority = self.plane.authority
        leaf = authority.leaf("fault-proxy", "/CN=fault-proxy", ["IP:127.0.0.1"])
        serves = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serves.load_cert_chain(leaf.certificate, leaf.key)
        calls = ssl.create_default_context(cafile=str(authority.certificate))
        calls.load_cert_chain(authority.folder / "admin.crt", authority.folder / "admin.key")
        api = FaultProxy(self.plane.server, serves, calls)
        storage = FaultProxy(self.minio.endpoint)
        self.stack.enter_context(api.running())
        self.stack.enter_context(storage.running())
        admin = authority.leaf("admin", "/O=system:masters/CN=admin", ["DNS:admin"])
        folder = self.operators.folder / pod  # with settings of its own
        folder.mkdir()
        kubeconfig = authority.kubeconfig(folder / "kubeconfig", api.url, admin)
        replica = Replica(pod, api, storage, Operators(folder, kubeconfig, self.operators.world))
        self.replicas.append(replica)
        self.start(replica)
        return replica

    def start(self, replica: Replica) -> None:
        """Start the replica's process, as its kubelet does."""
        settings = self.world.platform
        storage = settings.storage.replace(endpoint=replica.storage.url)
        replica.operators.world = _Settings(settings.replace(storage=storage))
        replica.started = time.monotonic()
        replica.process = replica.operators.start(**{POD_VARIABLE: replica.pod})

    def leads(self, replica: Replica) -> bool:
        return replica.process is not None and replica.operators.leads(replica.process)

    async def until(self, holds: Callable[[], object], seconds: float, what: str) -> float:
        """Wait until something holds; return for how long it was waited."""
        began = time.monotonic()
        while not await asyncio.to_thread(holds):
            if time.monotonic() - began > seconds:
                raise AssertionError(f"{what}: not in {seconds} s")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def until_leading(self, replica: Replica, seconds: float = 60) -> float:
        return await self.until(lambda: self.leads(replica), seconds, f"{replica.pod} leads")

    async def until_ready(self, replica: Replica) -> None:
        """Wait until a replica leads, watches, and has published what it does at its start."""
        await self.until_leading(replica)
        await self.until(lambda: len(_watched(replica)) == len(WATCHED_KINDS), 60, "watches")
        process = replica.process
        assert process is not None
        ready = lambda: replica.operators.ask(process, "/readyz")[0] == 200  # noqa: E731
        await self.until(ready, 60, "ready")
        for kind, name in (
            ("ConfigMap", names.PUBLIC_CONFIG_MAP),
            ("Secret", names.STORAGE_USER_SECRET),
        ):
            await wait_for_object(self.world, kind, name)

    # --- the life of runs -------------------------------------------------------------------------

    async def submit(self, *wanted: str) -> None:
        for name in wanted:
            await self.world.submit(name)
            self.submitted.append(name)

    async def until_phase(self, phase: str, seconds: float) -> None:
        """Wait until every run is in a phase; the API server may be away."""
        ends = time.monotonic() + seconds
        waiting = list(self.submitted)
        trouble: object = ""
        while waiting:
            try:
                run = await self.world.run(waiting[0])
                if run.status.phase == phase:
                    waiting.pop(0)
                    continue
                trouble = f"{run.status.phase}: {run.status.pending}"
            except ClusterError as error:
                trouble = error
            if time.monotonic() > ends:
                raise AssertionError(f"{waiting[0]} is not {phase} in {seconds:.0f} s: {trouble}")
            await asyncio.sleep(0.1)

    async def begin_training(self) -> list[Trainer]:
        """Start the pods of all runs; return their trainers, which have begun to train."""
        trainers = []
        for name in self.submitted:
            pod = await self.world.pod(name, seconds=60)
            await Kubelet(self.world.cluster).start(pod)
            run = await self.world.run(name)
            trainer = Trainer(self.world.cluster, self.world.store, run, pod, 1)
            trainer.claim()
            trainer.beat(1)
            trainers.append(trainer)
        return trainers

    async def end_training(self, trainers: Sequence[Trainer]) -> None:
        """Let all trainers do what successful ones do at the end."""
        for trainer in trainers:
            trainer.commit(10)
            trainer.publish()
            trainer.conclude(0)
            await trainer.end(0)

    # --- what holds in the end ------------------------------------------------------------------

    async def violations(self) -> list[str]:
        """Return what is not as it has to be, now that every run has ended."""
        found = []
        for name in self.submitted:
            run = await self.world.run(name)
            labels = {names.RUN_UID_LABEL: run.uid}
            for kind, expected in (("Job", 1), ("Pod", 1), ("Secret", 1), ("ConfigMap", 1)):
                objects = await self.world.cluster.list(kind, self.world.namespace, labels)
                if len(objects) != expected:
                    found.append(f"{name} has {len(objects)} objects of kind {kind}")
            if await self.world.jobs(name) != [0]:
                found.append(f"{name} has Jobs {await self.world.jobs(name)}")
            key = names.ending_key(run.namespace, run.name, run.uid)
            with suppress(Exception):
                if self.world.store.get_json(key, Ending).phase == "Succeeded":
                    continue
            found.append(f"the end of {name} is not recorded")
        for replica in self.replicas:
            found += [f"{replica.pod} wrote late: {late}" for late in replica.late_writes()]
        return found

    def close(self) -> None:
        for replica in self.replicas:
            replica.operators.stop()
        self.operators.release()
        self.stack.close()


def _watched(replica: Replica) -> set[str]:
    """What the replica's process has begun to watch."""
    return {
        seen.exchange.path for seen in replica.api.seen if seen.exchange.is_watch and seen.executed
    }
