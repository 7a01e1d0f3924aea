"""A webhook of a service mesh: it adds a container that never ends to the pods of runs."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flashrun.api import names
from localcluster.pki import Authority
from tests.json_server import serve_json, server_context

SIDECAR = "a-mesh"
"""Its name comes before that of the trainer, and so does its status."""


def _patch(image: str) -> str:
    container = {
        "name": SIDECAR,
        "image": image,
        "command": ["python3", "-c", "import time; time.sleep(1e6)"],
        "resources": {"limits": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    change = [{"op": "add", "path": "/spec/containers/0", "value": container}]
    return base64.b64encode(json.dumps(change).encode()).decode()


def _configuration(port: int, authority: Authority, namespace: str) -> dict[str, Any]:
    bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
    webhook = {
        "name": "mesh.example.com",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/", "caBundle": bundle},
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
             "resources": ["pods"]}
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "objectSelector": {"matchExpressions": [{"key": names.RUN_LABEL, "operator": "Exists"}]},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
    }  # fmt: skip
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "mesh"},
        "webhooks": [webhook],
    }


@contextmanager
def serve_injector(image: str, namespace: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Serve the webhook until the end of the context; yield its configuration."""
    authority = Authority(folder)
    authority.create()
    leaf = authority.leaf("mesh", "/CN=mesh", ["IP:127.0.0.1"])
    patch = _patch(image)

    def answer(_: str, review: Any) -> dict[str, Any]:
        response = {"uid": review["request"]["uid"], "allowed": True}
        return {**review, "response": {**response, "patchType": "JSONPatch", "patch": patch}}

    with serve_json(answer, server_context(leaf)) as port:
        yield _configuration(port, authority, namespace)
