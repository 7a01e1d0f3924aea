"""Fixtures of the command line: a shell, a served namespace, and a run that a test plays."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from flashrun.store import Store
from localcluster.controlplane import ControlPlane
from tests.cli.following import Stage
from tests.cli.kubelet import NODE, Kubelet
from tests.cli.shell import REFERENCE, Served, Shell
from tests.servers import Minio, kubectl

_namespaces = count(1)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell on a machine without any cluster."""
    found = Shell(tmp_path)
    found.write("config.toml", REFERENCE)
    return found


@pytest.fixture
def served(installed: Path, minio: Minio, store: Store, tmp_path: Path) -> Iterator[Served]:
    """A fresh namespace with everything that the operator publishes in it."""
    namespace = f"people-{next(_namespaces)}"
    kubectl(installed, "create", "namespace", namespace)
    own = tmp_path / "kubeconfig"
    own.write_text(installed.read_text())
    kubectl(own, "config", "set-context", "--current", "--namespace", namespace)
    shell = Shell(tmp_path, own)
    shell.write("config.toml", REFERENCE)
    found = Served(shell, installed, namespace, store)
    found.publish()
    yield found
    kubectl(installed, "delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def run(served: Served) -> str:
    """A run of the reference's example, which has ended."""
    served.push()
    name = served.submit()
    served.report(name, phase="Succeeded", adapter={"ref": name, "bytes": 1})
    return name


@pytest.fixture(scope="module")
def kubelet(control_plane: ControlPlane, installed: Path) -> Iterator[Kubelet]:
    """A node whose logs the test writes."""
    leaf = control_plane.authority.leaf("kubelet-of-tests", "/CN=kubelet", ["IP:127.0.0.1"])
    serving = Kubelet(leaf)
    kubectl(installed, "apply", "-f", "-", stdin=json.dumps(serving.node()))
    status = ("--subresource=status", "--type=merge", "-p", serving.node_status())
    kubectl(installed, "patch", "node", NODE, *status)
    yield serving
    kubectl(installed, "delete", "node", NODE, "--wait=false")
    serving.stop()


@pytest.fixture
def stage(served: Served, kubelet: Kubelet) -> Stage:
    served.push()
    run = served.submit()
    return Stage(served, kubelet, run, served.get("flashrun", run)["metadata"]["uid"])
