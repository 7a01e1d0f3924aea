"""Nodes that a Job avoids, as a real scheduler reads it; the nodes have no kubelet."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashrun.plan import objects
from localcluster.controlplane import ControlPlane
from tests.plan.test_objects import RESOLVED
from tests.plan.worlds import PLATFORM, make_run
from tests.servers import kubectl

pytestmark = pytest.mark.api

NODES = {"gpu-1.example.internal": "gpu-1", "gpu-2.example.internal": "gpu-2"}
"""Their names and, as some clouds write it, another label ``kubernetes.io/hostname``."""
ONE, TWO = NODES


@pytest.fixture(scope="module")
def scheduling_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    plane = ControlPlane(tmp_path_factory.mktemp("scheduled"), scheduler=True, ephemeral=True)
    path = plane.start()
    kubectl(path, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    yield path
    plane.remove()


@pytest.fixture
def kubeconfig(scheduling_kubeconfig: Path) -> Iterator[Path]:
    """Nodes are made for each test: those that no kubelet reports on count as lost in a minute."""
    amounts = {"cpu": "8", "memory": "64Gi", "pods": "10", PLATFORM.pools[0].resource: "8"}
    ready = {"type": "Ready", "status": "True"}
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": label}},
            "status": {"capacity": amounts, "allocatable": amounts, "conditions": [ready]},
        }
        for name, label in NODES.items()
    ]
    created = json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes})
    kubectl(scheduling_kubeconfig, "create", "-f", "-", stdin=created)
    yield scheduling_kubeconfig
    kubectl(scheduling_kubeconfig, "delete", "nodes", *NODES)


def scheduled(kubeconfig: Path, pod: str) -> str:
    """Return the node that the scheduler has chosen, or its sentence about why there is none."""
    end = time.monotonic() + 30
    while True:
        found: dict[str, Any] = json.loads(kubectl(kubeconfig, "get", "pod", pod, "-ojson"))
        if node := found["spec"].get("nodeName"):
            return str(node)
        said = [item.get("message", "") for item in found["status"].get("conditions", [])]
        # Until the controllers know that they are ready, new nodes have a taint.
        if any("affinity" in text for text in said) and not any("taint" in text for text in said):
            return " ".join(said)
        assert time.monotonic() < end, found["status"]
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("avoided", "expected"),
    [
        ((ONE,), TWO),
        ((TWO,), ONE),
        ((ONE, TWO), "2 node(s) didn't match Pod's node affinity/selector"),
        (("gpu-1",), ""),
    ],
    ids=["the first", "the second", "both", "a label is not a name"],
)
def test_a_pod_avoids_nodes_by_their_names(
    kubeconfig: Path, avoided: tuple[str, ...], expected: str
) -> None:
    placement = objects.JobPlacement(1, PLATFORM.pools[0], avoid_nodes=avoided)
    template = objects.trainer_job(make_run(), placement, PLATFORM, RESOLVED)["spec"]["template"]
    metadata = {"generateName": "pod-"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    made = kubectl(kubeconfig, "create", "-f", "-", "-oname", stdin=json.dumps(pod))

    found = scheduled(kubeconfig, made.strip().removeprefix("pod/"))
    assert expected in found
    assert expected or found in NODES
