"""How fast pods exist, beside Kubeflow's training-operator, which is written in Go.

    python -m bench.peer [--runs 300] [--rounds 3] [--busy]

Both operators get as many resources at once, on an API server with the Job controller of their own,
in turns. Measured is the time until 99 % and all of the pods exist, and the processor time of the
operator and of the API server. The peer is built from its released source with Go, once as it is
and once with a client that may send 500 requests per second; its client sends 20 by default. It is
given as many workers as ours has. ``--busy`` lets a busy loop run beside for each core.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

from bench import sides
from bench.operator import (
    OURS,
    READS,
    TEAM,
    WRITES,
    Processor,
    Requests,
    answered_requests,
    sum_of,
)
from flashrun.cluster import Cluster
from flashrun.cluster_requests import RESOURCES, Resource
from flashrun.controller.__main__ import WORKERS
from localcluster.controlplane import ControlPlane
from tests.controller.conftest import Operators
from tests.controller.stage import World, flash_run, platform, push_environment
from tests.servers import Minio, install_crd, kubectl, start_control_plane, wait_until_served

MODULE = "github.com/kubeflow/training-operator"
VERSION = "v1.8.1"
QUICK_QPS = 500
QUIET_SECONDS = 5.0
LONGEST_SECONDS = 600.0
SIDES = ("flashrun", "peer", f"peer-{QUICK_QPS}-qps")
CERTIFICATES = Path(tempfile.gettempdir()) / "k8s-webhook-server" / "serving-certs"
"""Where the peer looks for its webhook's certificate; a kubelet would mount the Secret there."""
PYTORCH_JOBS = Resource("kubeflow.org/v1", "pytorchjobs")
VALIDATOR = "validator.training-operator.kubeflow.org"
_PEER_NAMESPACE = "kubeflow"
_WEBHOOK_SECRET = "training-operator-webhook-cert"


class Sample(NamedTuple):
    """One measurement of one side."""

    seconds: float
    """From the first creation until all pods exist."""
    p99_seconds: float
    """The same until 99 % of them do."""
    operator_ms: float
    """Processor time of the operator for each run, in milliseconds."""
    server_ms: float
    """The same of the API server."""
    reads: float
    """Requests that read, for each run, those of the controllers included."""
    writes: float
    """Requests that write, for each run, those of the controllers included."""


def peer_program(qps: int | None) -> Path:
    """Build the peer if that was not done yet; return its program."""
    program = sides.CACHE / f"training-operator-{VERSION}{f'-{qps}' if qps else ''}"
    if program.exists():
        return program
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        shutil.copytree(peer_source(), source, copy_function=shutil.copyfile)
        for path in (source, *source.rglob("*/")):
            path.chmod(0o755)  # Go's cache is read-only
        if qps:
            main = source / "cmd" / "training-operator.v1" / "main.go"
            quick = (
                "quick := ctrl.GetConfigOrDie()\n"
                f"\tquick.QPS, quick.Burst = {qps}, {2 * qps}\n"
                "\tmgr, err := ctrl.NewManager(quick,"
            )
            default = "mgr, err := ctrl.NewManager(ctrl.GetConfigOrDie(),"
            main.write_text(main.read_text().replace(default, quick))
        program.parent.mkdir(parents=True, exist_ok=True)
        build = ["go", "build", "-mod=mod", "-o", str(program), "./cmd/training-operator.v1"]
        subprocess.run(build, cwd=source, check=True)
    return program


def peer_source() -> Path:
    """Return the folder with the released source of the peer, in Go's cache of modules."""
    done = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@{VERSION}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(json.loads(done.stdout)["Dir"])


def pytorch_job(name: str) -> dict[str, object]:
    """Return a job of one pod, the least that the peer takes."""
    container = {"name": "pytorch", "image": "pause", "command": ["train"]}
    replica = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {"pytorchReplicaSpecs": {"Master": replica}},
    }


class Bench:
    """One API server; the side that is measured creates pods in its namespace."""

    def __init__(self, cluster: Cluster, plane: ControlPlane) -> None:
        self._cluster, self._plane, self._own = cluster, plane, Requests()

    async def measure(self, pid: int, count: int, submit: Callable[[], asyncio.Future]) -> Sample:
        """Submit ``count`` resources at once, and wait until each has its pod."""
        await asyncio.sleep(QUIET_SECONDS)
        operator = Processor(pid)
        server = Processor(self._plane.daemons.pid("kube-apiserver"))
        before = await self._requests()
        used, served = operator.seconds(), server.seconds()
        began, p99 = time.monotonic(), 0.0
        submitting = asyncio.ensure_future(submit())
        while (pods := await self._pods()) < count:
            if submitting.done():
                submitting.result()
            if not p99 and pods >= 0.99 * count:
                p99 = time.monotonic() - began
            if time.monotonic() - began > LONGEST_SECONDS:
                raise SystemExit(f"only {pods} pods of {count}")
            await asyncio.sleep(0.1)
        seconds = time.monotonic() - began
        await submitting
        await asyncio.sleep(QUIET_SECONDS)
        requests = await self._requests()
        requests.subtract(before)
        return Sample(
            seconds=seconds,
            p99_seconds=p99 or seconds,
            operator_ms=1000 * (operator.seconds() - used) / count,
            server_ms=1000 * (server.seconds() - served) / count,
            reads=sum_of(requests, READS) / count,
            writes=sum_of(requests, WRITES) / count,
        )

    async def _pods(self) -> int:
        number = 0
        async for _ in self._cluster.list_metadata("Pod", TEAM):
            number += 1
        self._own["LIST", "pods"] += max(1, -(-number // 500))
        return number

    async def _requests(self) -> Requests:
        counted = await answered_requests(self._plane.kubeconfig, OURS | {"pytorchjobs"})
        counted.subtract(self._own)
        return counted


async def measure_ours(folder: Path, plane: ControlPlane, count: int) -> Sample:
    """Measure our operator."""
    minio = Minio(folder / "minio")
    minio.start()
    try:
        install_crd(plane.kubeconfig)
        store = minio.store("operator")
        push_environment(store)
        async with await Cluster.login(plane.kubeconfig) as cluster:
            world = World(cluster, store, platform(TEAM, store.access), plane.kubeconfig)
            operators = Operators(folder, plane.kubeconfig, world)
            try:
                process = operators.start()
                operators.wait(lambda: operators.leads(process), 60)
                operators.wait(lambda: operators.ask(process, "/readyz")[0] == 200, 60)
                runs = [flash_run(TEAM, f"flash-{number}-many") for number in range(count)]

                async def submit() -> None:
                    await asyncio.gather(*map(cluster.create, runs))

                return await Bench(cluster, plane).measure(process.pid, count, submit)
            finally:
                operators.stop()
    finally:
        minio.stop()


async def measure_peer(folder: Path, plane: ControlPlane, count: int, qps: int | None) -> Sample:
    """Measure the peer."""
    crd = peer_source() / "manifests" / "base" / "crds" / "kubeflow.org_pytorchjobs.yaml"
    kubectl(plane.kubeconfig, "apply", "--server-side", "-f", str(crd))
    wait_until_served(plane.kubeconfig, "pytorchjobs")
    kubectl(plane.kubeconfig, "create", "namespace", _PEER_NAMESPACE)
    kubectl(plane.kubeconfig, "create", "secret", "generic", _WEBHOOK_SECRET, "-n", _PEER_NAMESPACE)
    kubectl(plane.kubeconfig, "create", "-f", "-", stdin=json.dumps(_unused_webhook()))
    command = [
        *(peer_program(qps), "--enable-scheme=pytorchjob", f"--controller-threads={WORKERS}"),
        *("--metrics-bind-address=0", "--health-probe-bind-address=0", "--zap-log-level=error"),
    ]
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    with (folder / "peer.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: ASYNC220
    cast("dict[str, Resource]", RESOURCES)["PyTorchJob"] = PYTORCH_JOBS
    try:
        await asyncio.to_thread(_mount_certificate, plane.kubeconfig)
        async with await Cluster.login(plane.kubeconfig) as cluster:
            await _wait_for_peer(plane.kubeconfig)
            jobs = [pytorch_job(f"flash-{number}-many") for number in range(count)]

            async def submit() -> None:
                await asyncio.gather(*map(cluster.create, jobs))

            return await Bench(cluster, plane).measure(process.pid, count, submit)
    finally:
        process.terminate()
        process.wait()


def _unused_webhook() -> dict[str, object]:
    """Return the webhook that the peer waits for, for objects that do not exist.

    The API server cannot reach a Service here.
    """
    webhook = {
        "name": VALIDATOR,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "clientConfig": {"service": {"name": "training-operator", "namespace": _PEER_NAMESPACE}},
        "objectSelector": {"matchLabels": {"never": "there"}},
        "rules": [
            {
                "apiGroups": ["kubeflow.org"],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pytorchjobs"],
            }
        ],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": VALIDATOR},
        "webhooks": [webhook],
    }


def _mount_certificate(kubeconfig: Path) -> None:
    """Do what a kubelet would do: put the Secret that the peer fills where it looks for it."""
    words = ("get", "secret", _WEBHOOK_SECRET, "-n", _PEER_NAMESPACE, "-o", "json")
    deadline = time.monotonic() + 60
    while not (data := json.loads(kubectl(kubeconfig, *words)).get("data")):
        if time.monotonic() > deadline:
            raise SystemExit("the peer has not made its certificate")
        time.sleep(0.5)
    CERTIFICATES.mkdir(parents=True, exist_ok=True)
    for name, value in data.items():
        (CERTIFICATES / name).write_bytes(base64.b64decode(value))


async def _wait_for_peer(kubeconfig: Path) -> None:
    """Wait until the peer creates the pod of a first job, then remove both."""
    name = "first"
    kubectl(kubeconfig, "create", "-f", "-", stdin=json.dumps(pytorch_job(name)))
    deadline = time.monotonic() + 120
    while not kubectl(kubeconfig, "get", "pods", "-n", TEAM, "-o", "name"):
        if time.monotonic() > deadline:
            raise SystemExit("the peer creates no pod")
        await asyncio.sleep(0.5)
    kubectl(kubeconfig, "delete", "pytorchjobs", "-n", TEAM, name, "--cascade=foreground")
    while kubectl(kubeconfig, "get", "pods", "-n", TEAM, "-o", "name"):
        kubectl(kubeconfig, "delete", "pods", "-n", TEAM, "--all", "--force", "--grace-period=0")


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Keep ``number`` cores busy with something else."""
    loops = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(number)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.terminate()
            loop.join()


def _spin() -> None:
    while True:
        pass


def measure(side: str, count: int) -> Sample:
    """Measure one side on servers of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plane = start_control_plane(folder / "plane")
        try:
            kubectl(plane.kubeconfig, "create", "namespace", TEAM)
            if side == SIDES[0]:
                return asyncio.run(measure_ours(folder, plane, count))
            qps = None if side == SIDES[1] else QUICK_QPS
            return asyncio.run(measure_peer(folder, plane, count, qps))
        finally:
            plane.remove()


def main() -> int:
    """Measure all sides in turns; print medians and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="a busy loop beside for each core")
    given = parser.parse_args()
    for qps in (None, QUICK_QPS):
        peer_program(qps)
    found: dict[str, list[Sample]] = {side: [] for side in SIDES}
    with busy_loops((os.cpu_count() or 1) if given.busy else 0):
        for number in range(given.rounds):
            for side in sides.turns(number, SIDES):
                sample = measure(side, given.runs)
                found[side].append(sample)
                values = zip(Sample._fields, sample, strict=True)
                words = ", ".join(f"{name} {value:.1f}" for name, value in values)
                print(f"{side:14} {words}", flush=True)
    print(f"{given.runs} runs, {given.rounds} rounds, busy: {given.busy}; {sides.machine()}")
    print(f"training-operator {VERSION}, {WORKERS} workers each")
    for name, *columns in zip(Sample._fields, *(zip(*found[s], strict=True) for s in SIDES),
                              strict=True):  # fmt: skip
        ours, *peers = columns
        medians = " ".join(f"{statistics.median(column):9.1f}" for column in columns)
        ratios = " ".join(f"{sides.ratio(ours, peer) if all(peer) else float('nan'):6.2f}"
                          for peer in peers)  # fmt: skip
        print(f"{name:12} {medians}  ratios {ratios}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
