"""The whole product, installed: a cluster with real pods, storage, images, chart and tiny model.

What the demo installs is what is tested. A cluster that is up is used, and one that had to be
started is removed again. The last module (``test_whole_life``) uninstalls the product.
"""

import asyncio
import importlib.util
import io
import json
import os
import secrets
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.api.records import StorageAccess
from flashrun.cluster import Cluster
from flashrun.store import Store
from flashrun.store_metrics import read_history
from localcluster import demo, lifecycle
from localcluster.steps import StepRunner
from tests.e2e import environments, pools

ROOT = Path(__file__).parents[2]
NAMESPACE = "default"
SYSTEM = "flashrun-system"
PATIENCE_SECONDS = 420
JOB_SECONDS = 1800
"""Longest time for a Job that runs tests: the trainer's own suite takes minutes on two cores."""


@dataclass(frozen=True)
class Product:
    """The installed product as its users reach it: by ``flash``, by ``kubectl``, by storage."""

    local: lifecycle.DevCluster
    steps: StepRunner
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """A user's shell: a kubeconfig and nothing else of ours."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.local.kubeconfig),
        }

    def flash(
        self, *words: str, check: bool = True, cwd: Path | None = None, **shell: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``flash`` as a user would, outside a terminal."""
        done = subprocess.run(
            [sys.executable, "-m", "flashrun.cli.main", *words],
            env={**self.environment, "PYTHONPATH": str(ROOT / "operator" / "src"), **shell},
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"flash {' '.join(words)}: {done.stdout}{done.stderr}")
        return done

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """Run ``kubectl`` as the administrator and return what it prints."""
        done = subprocess.run(
            lifecycle.kubectl(list(words), self.steps),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def read(self, kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """Return an object by one request: what waits asks often, and a kubectl takes longer."""

        async def get() -> dict[str, Any]:
            async with await Cluster.login(self.local.kubeconfig, quick=True) as cluster:
                return await cluster.get(kind, namespace, name)

        return asyncio.run(get())

    def new_name(self, stem: str) -> str:
        """Return a name that no earlier run on this cluster has."""
        return f"{stem}-{secrets.token_hex(4)}"

    def submit(self, config: Path, *sets: str, **shell: str) -> str:
        """Submit a run in the background and return its name."""
        assignments = [word for assignment in sets for word in ("--set", assignment)]
        words = ("train", str(config), *assignments, "--background")
        return self.flash(*words, **shell).stdout.split()[0]

    def status(self, run: str) -> dict[str, Any]:
        """Return the status of a run; empty when it has none yet."""
        status: dict[str, Any] = self.read("FlashRun", run).get("status", {})
        return status

    def wait(
        self,
        run: str,
        done: Callable[[dict[str, Any]], Any],
        what: str,
        seconds: float = PATIENCE_SECONDS,
    ) -> dict[str, Any]:
        """Wait until the status of a run satisfies ``done``."""
        deadline = time.monotonic() + seconds
        while not done(status := self.status(run)):
            if time.monotonic() > deadline or status.get("phase") in ("Failed", "Succeeded"):
                if done(status := self.status(run)):
                    break
                log = self.flash("log", run, check=False).stdout[-3000:]
                raise AssertionError(f"{run}: no {what}; {json.dumps(status)[:3000]}\n{log}")
            time.sleep(1)
        return status

    def end(self, run: str, phase: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait until a run has ended in ``phase``."""
        return self.wait(run, lambda status: status.get("phase") == phase, phase, seconds)

    def condition(self, run: str, kind: str) -> dict[str, Any]:
        """Return one condition of a run."""
        found = {item["type"]: item for item in self.status(run)["conditions"]}
        condition: dict[str, Any] = found[kind]
        return condition

    def wait_until(
        self, done: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until ``done``."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s for {what}")
            time.sleep(1)

    def scale_operator(self, replicas: int) -> None:
        """Stop the operator, or start it again, and wait until that is so."""
        where = ("-n", SYSTEM)
        self.kubectl("scale", "deployment/flashrun", f"--replicas={replicas}", *where)
        if replicas:
            self.kubectl("rollout", "status", "deployment/flashrun", "--timeout=120s", *where)
        else:
            selector = "app.kubernetes.io/component=operator"
            self.kubectl("wait", "pod", "-l", selector, "--for=delete", "--timeout=60s", *where)

    @property
    def trainer_image(self) -> str:
        """The image that trainer pods run, by digest."""
        found = self.kubectl("get", "configmap", "flashrun-platform", "-n", SYSTEM, "-ojson")
        settings = yaml.safe_load(json.loads(found)["data"]["platform.yaml"])
        image: str = settings["trainer"]["image"]
        return image

    @property
    def access(self) -> StorageAccess:
        """How storage is reached with the administrator's keys."""
        return StorageAccess(
            endpoint=self.local.storage_endpoint,
            bucket="flashrun",
            access_key=self.local.access_key,
            secret_key=self.local.secret_key,
        )

    @property
    def store(self) -> Store:
        """Storage, with the administrator's keys."""
        return Store(self.access)

    def keys(self, run: str) -> list[str]:
        """Return every key of a run in storage."""
        return [entry.key for entry in self.store.list(f"runs/{NAMESPACE}/{run}/")]

    def metrics(self, run: str) -> list[dict[str, float]]:
        """Return the run's metrics history, one mapping a step."""
        [prefix] = {
            key.partition("metrics/")[0] for key in self.keys(run) if "/metrics/attempt-" in key
        }
        return [json.loads(line) for line, _ in read_history(self.store, prefix)]

    def start_in_trainer_image(self, name: str, files: Mapping[str, Path], *command: str) -> None:
        """Start ``command`` in a pod of the trainer image, beside ``files``.

        Files travel through storage, under the paths that are their keys.
        """
        bundle = io.BytesIO()
        with tarfile.open(fileobj=bundle, mode="w:gz") as packed:
            for path, source in files.items():
                packed.add(source, path, filter=_without_caches)
        key = f"tests/{name}.tar.gz"
        self.store.put_bytes(key, bundle.getvalue())
        objects = _job(
            name, self.trainer_image, self.access, ["python3", "-c", UNPACK, key, *command]
        )
        self.kubectl("delete", "job,secret", name, "-n", SYSTEM, "--ignore-not-found")
        self.kubectl("create", "-n", SYSTEM, "-f", "-", stdin=json.dumps(objects))

    def output_of(self, name: str) -> str:
        """Wait until what was started as ``name`` has ended, and return what it printed."""
        self.wait_until(lambda: self._ended(name), f"Job {name}", JOB_SECONDS)
        return self.kubectl("logs", f"job/{name}", "-n", SYSTEM)

    def _ended(self, job: str) -> bool:
        status = self.read("Job", job, SYSTEM).get("status", {})
        return bool(status.get("succeeded") or status.get("failed"))


UNPACK = """
import io, os, sys, tarfile
from flashrun.api.records import StorageAccess
from flashrun.store import Store
from flashrun.store_metrics import read_history

access = StorageAccess.model_validate_json(os.environ["STORAGE_ACCESS"])
data = Store(access).get_bytes(sys.argv[1])
os.makedirs("/tmp/bundle")
tarfile.open(fileobj=io.BytesIO(data)).extractall("/tmp/bundle", filter="data")
os.chdir("/tmp/bundle")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def _without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member


def _job(name: str, image: str, access: StorageAccess, command: list[str]) -> dict[str, Any]:
    storage = {"name": name, "key": "access.json"}
    container = {
        "name": name,
        "image": image,
        "command": command,
        "env": [
            {"name": "STORAGE_ACCESS", "valueFrom": {"secretKeyRef": storage}},
            {"name": "OMP_NUM_THREADS", "value": "1"},
        ],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {"access.json": access.model_dump_json(exclude_none=True)},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
    return {"apiVersion": "v1", "kind": "List", "items": [secret, job]}


FOREVER = {"max_steps": 4000, "epochs": 4000, "save_every": 100}
TRAINER_TESTS = "trainer-tests"
WANTED = "trainer and not network and not sharding"
"""The others need a network that a pod may not make, or a PyTorch that can shard on CPUs."""
RUNNER = ("_pytest", "execnet", "iniconfig", "pluggy", "py", "pytest", "xdist")
"""The test runner; the trainer image has none, and these are pure Python."""
SPREAD = ("-p", "xdist.plugin", "--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")
"""Two tests at a time, each with one thread: much of a test is waiting for processes to start."""


BEGUN_FIRST = {"test_trainer.py": "trainer_tests", "test_kubelet.py": "kubelet_runs"}
"""Modules whose work takes longest or waits most → the fixture that begins it."""


@pytest.fixture(scope="session", autouse=True)
def begun_first(request: pytest.FixtureRequest) -> None:
    """Begin what takes longest before all else, if its module is wanted."""
    wanted = {item.path.name for item in request.session.items}
    for module, fixture in BEGUN_FIRST.items():
        if module in wanted:
            request.getfixturevalue(fixture)


@pytest.fixture(scope="session")
def kubelet_runs(product: Product, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A run for each pool that lacks something: the kubelet ends their pods again and again."""
    submitted = {}
    for model, train in ((pools.CRAMPED, {}), (pools.LITTLE_DISK, FOREVER)):
        folder = tmp_path_factory.mktemp("config")
        config = environments.config(folder, "examples/sums", "sft", model=model, train=train)
        submitted[model] = product.submit(config)
    return submitted


@pytest.fixture(scope="session")
def trainer_tests(product: Product) -> None:
    """Start the trainer's own tests in a pod."""
    files = dict(map(_installed, RUNNER))
    files |= {name: ROOT / name for name in ("examples", "tests/trainer")}
    words = ("python3", "-m", "pytest", "tests/trainer", "-m", WANTED, "-rs", "--durations=8")
    words += (*SPREAD, "--import-mode=importlib")
    product.start_in_trainer_image(TRAINER_TESTS, files, *words)


def _installed(module: str) -> tuple[str, Path]:
    """Return a module's name as a file or folder, and where it is."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin)
    return (module, path.parent) if path.name == "__init__.py" else (path.name, path)


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("user")
    found = lifecycle.remembered_kind() is not None
    with closing(StepRunner.named("test-e2e")) as steps:
        with lifecycle.exclusive_command():
            local = demo.install(steps, pools.VALUES, pools.MODELS)
        yield Product(local, steps, folder)
        if not found:
            lifecycle.down(steps)
