"""A webhook that changes the pods of runs, as a service mesh does which adds containers."""

import base64
import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flashrun.api import names
from localcluster.pki import Authority

Object = dict[str, Any]
SIDECAR = "a-mesh"
"""Its name comes before that of the trainer, and so does its status."""
NATIVE_SIDECAR = "a-proxy"
"""An init container that is restarted always; the kubelet ends it, with 143, after the trainer."""


def mesh(image: str, *wanted: str) -> list[Object]:
    """Return the change of a mesh whose containers of these names never end by themselves."""
    scripts = {
        "/spec/containers/0": (SIDECAR, "sleep 1000000", {}),
        "/spec/initContainers/0": (
            NATIVE_SIDECAR,
            "trap 'exit 143' TERM; while :; do sleep 0.2; done",
            {"restartPolicy": "Always"},
        ),
    }
    return [
        {"op": "add", "path": path, "value": {**_container(image, name, script), **more}}
        for path, (name, script, more) in scripts.items()
        if name in wanted
    ]


def _container(image: str, name: str, script: str) -> Object:
    return {
        "name": name,
        "image": image,
        "command": ["sh", "-c", script],
        "resources": {"limits": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _configuration(port: int, authority: Authority, namespace: str) -> Object:
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
def serve_injector(namespace: str, folder: Path, change: Sequence[Object]) -> Iterator[Object]:
    """Serve a webhook that makes this change of pods; yield its configuration."""
    authority = Authority(folder)
    authority.create()
    leaf = authority.leaf("mesh", "/CN=mesh", ["IP:127.0.0.1"])
    patch = base64.b64encode(json.dumps(change).encode()).decode()

    class Webhook(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = {"uid": review["request"]["uid"], "allowed": True}
            review["response"] = {**answer, "patchType": "JSONPatch", "patch": patch}
            body = json.dumps(review).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf.certificate, leaf.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield _configuration(server.server_address[1], authority, namespace)
        finally:
            server.shutdown()
            thread.join()
