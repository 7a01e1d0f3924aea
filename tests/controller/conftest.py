"""A namespace of its own for each test, on one real control plane and one real store."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio
import yaml
from urllib3.exceptions import HTTPError

from flashrun.api.platform import Platform
from flashrun.cluster import Cluster
from flashrun.store import Store
from localcluster.ports import Ports
from tests.api_server import Refused, api_server
from tests.controller.stage import World, platform, push_environment
from tests.servers import ROOT_PASSWORD, ROOT_USER

ROOT = Path(__file__).parents[2]
ALLOCATOR = dict(re.findall(r"(MALLOC_\w+)=(\d+)", (ROOT / "operator" / "Dockerfile").read_text()))
"""Settings of the memory allocator that the image has."""
_namespaces = count(1)


@pytest_asyncio.fixture
async def cluster(installed: Path) -> AsyncIterator[Cluster]:
    """The administrator's connection."""
    async with await Cluster.login(installed) as connection:
        yield connection


@pytest_asyncio.fixture
async def namespace(cluster: Cluster) -> str:
    """A fresh namespace."""
    name = f"team-{next(_namespaces)}"
    await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
def make_world(
    cluster: Cluster, store: Store, namespace: str, installed: Path
) -> Callable[..., World]:
    def make(**trainer: object) -> World:
        push_environment(store)
        settings = platform(namespace, store.access, **trainer)
        return World(cluster, store, settings, installed)

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world with an environment in storage."""
    return make_world()


class HasPlatform(Protocol):
    """Something with settings for an operator."""

    platform: Platform


@dataclass
class Operators:
    """Operator processes, as the cluster would run them."""

    folder: Path
    kubeconfig: Path
    world: HasPlatform
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ports: dict[int, int] = field(default_factory=dict)

    def start(
        self,
        kubeconfig: Path | None = None,
        program: Sequence[str] = (sys.executable, "-m", "flashrun.controller"),
        **variables: str,
    ) -> subprocess.Popen[bytes]:
        keys = self.folder / "keys"
        keys.mkdir(exist_ok=True)
        (keys / "accessKey").write_text(ROOT_USER)
        (keys / "secretKey").write_text(ROOT_PASSWORD)
        settings = self.folder / "platform.yaml"
        settings.write_text(yaml.safe_dump(self.world.platform.model_dump(mode="json")))
        number = len(self.running)
        port = Ports(self.folder / "ports.json").get(f"operator-{number}", address="")
        words = ["--settings", settings, "--storage-keys", keys, "--port", str(port)]
        words += ["--upstream-keys", self.folder / "upstreams"]
        words += ["--kubeconfig", kubeconfig or self.kubeconfig]
        log = (self.folder / f"operator-{number}.log").open("ab")
        process = subprocess.Popen(
            [*program, *words],
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                **ALLOCATOR,
                "PYTHONPATH": str(ROOT / "operator" / "src"),
                **variables,
            },
        )
        log.close()
        self.running.append(process)
        self.ports[process.pid] = port
        return process

    def ask(self, process: subprocess.Popen[bytes], path: str) -> tuple[int, str]:
        """What a probe gets; status 0 when nobody answers."""
        url = f"http://127.0.0.1:{self.ports[process.pid]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=3) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def leads(self, process: subprocess.Popen[bytes]) -> bool:
        return "flashrun_operator_leading 1.0" in self.ask(process, "/metrics")[1]

    def wait(self, ready: Callable[[], object], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end:
                raise AssertionError(f"it never happened; logs: {self.logs()[-3000:]}")
            time.sleep(0.1)

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("operator-*.log")))

    def stop(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        self.release()

    def release(self) -> None:
        """Spare the next process the fifteen seconds that a killed holder's lease lasts."""
        nobody = {"spec": {"holderIdentity": ""}}
        with contextlib.suppress(Refused, HTTPError):  # nobody ever held it, or the server is gone
            api_server(self.kubeconfig).merge("lease", "default", "flashrun-operator", nobody)


@pytest.fixture
def operators(tmp_path: Path, installed: Path, world: World) -> Iterator[Operators]:
    started = Operators(tmp_path, installed, world)
    yield started
    started.stop()
