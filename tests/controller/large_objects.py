"""Objects as large and as deep as the API server takes, which any editor can create."""

import json
from typing import Any

from flashrun.api import names
from flashrun.cluster_requests import RESOURCES
from tests.controller.stage import World, flash_run
from tests.servers import kubectl

SIZE = 1_400_000
"""Bytes of one object: the API server takes 1.5 MiB."""
PODS = 12


def repeated(item: str, size: int = SIZE) -> str:
    """Return ``item``, with numbers in it, as often as ``size`` allows."""
    count = size // (len(item) + 1)
    return ",".join(item % number if "%" in item else item for number in range(count))


FLOOD = f'{{"a": [{repeated("[]")}]}}'
PARAMS = {
    "flood": FLOOD,
    "nested": f'{{"a": {"[" * 4500}{"]" * 4500}}}',
    "key": json.dumps({"k" * (SIZE // 2): ["ab"] * 4_000}),
    "text": json.dumps({"a": "\U0001f600" + "x" * SIZE}),
}
"""Values of ``params`` as they are written."""


def post(world: World, kind: str, text: str) -> None:
    """Create an object as it is written, however deep it is."""
    path = RESOURCES[kind].path(world.namespace)
    kubectl(world.kubeconfig, "create", "--raw", path, "-f", "-", stdin=text)


def large_run(namespace: str, case: str) -> str:
    """Return a run with the ``params`` of a case."""
    run = flash_run(namespace, f"flash-1-{case}")
    run["spec"]["environment"]["params"] = "PARAMS"
    return json.dumps(run).replace('"PARAMS"', PARAMS[case])


def large_labels(own: dict[str, str]) -> dict[str, str]:
    """Return ``own`` labels and as many others as an object has room for."""
    return {f"label-{number:06}": "" for number in range(SIZE // 40)} | own


def post_large_objects(world: World, labels: dict[str, str]) -> None:
    """Create all of these runs, and pods that carry the labels of a run."""
    for case in PARAMS:
        post(world, names.KIND, large_run(world.namespace, case))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "controller": True, "name": "x", "uid": "x"}
    for number in range(PODS):
        metadata: dict[str, Any] = {
            "name": f"a-large-{number}",
            "namespace": world.namespace,
            "labels": large_labels(labels),
            "ownerReferences": [owner],
        }
        spec = {"containers": [{"name": "c", "image": "i"}]}
        post(world, "Pod", json.dumps({"metadata": metadata, "spec": spec}))
