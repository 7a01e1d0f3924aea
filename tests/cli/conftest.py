"""Fixtures of the command line: a shell, a served namespace, and a run that a test plays."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import yaml

from flashrun.api import names
from flashrun.store import Store
from localcluster.controlplane import ControlPlane
from tests.api_server import api_server
from tests.cli.finished_run import FinishedRun, play_finished_run
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


@contextmanager
def serving(installed: Path, store: Store, folder: Path) -> Iterator[Served]:
    """A fresh namespace with everything that the operator publishes in it."""
    namespace = f"people-{next(_namespaces)}"
    server = api_server(installed)
    metadata = {"name": namespace}
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    own = folder / "kubeconfig"
    config = yaml.safe_load(installed.read_text())
    config["contexts"][0]["context"]["namespace"] = namespace
    own.write_text(yaml.safe_dump(config))
    shell = Shell(folder, own)
    shell.write("config.toml", REFERENCE)
    found = Served(shell, installed, namespace, store)
    found.publish()
    yield found
    server.delete("namespace", None, namespace)


@pytest.fixture
def served(installed: Path, minio: Minio, store: Store, tmp_path: Path) -> Iterator[Served]:
    """A fresh namespace with everything that the operator publishes in it."""
    with serving(installed, store, tmp_path) as found:
        yield found


@pytest.fixture
def no_other_runs(installed: Path) -> None:
    """Runs of earlier tests are gone, which else go with their namespaces a while later.

    What a run needs cannot be deleted, in whatever namespace the run is.
    """
    kubectl(installed, "delete", names.PLURAL, "--all", "--all-namespaces")


@pytest.fixture(scope="module")
def finished_run(
    installed: Path, minio: Minio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FinishedRun]:
    """A run that has ended, in a namespace that many tests read."""
    store = minio.store("finished-run")
    with serving(installed, store, tmp_path_factory.mktemp("finished-run")) as found:
        yield play_finished_run(found)


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
