"""The API server as tests prepare it: one request of some milliseconds for each change.

A kubectl takes twenty times as long to start.
"""

import functools
import json
from pathlib import Path
from typing import Any

import urllib3
import yaml

from flashrun.api import names
from localcluster.pki import Authority

VERSIONS = {
    "flashrun": f"apis/{names.API_VERSION}",
    "deployment": "apis/apps/v1",
    "lease": "apis/coordination.k8s.io/v1",
    **dict.fromkeys(("configmap", "namespace", "pod", "secret", "service"), "api/v1"),
}
"""Where each kind is served."""


class Refused(AssertionError):
    """The API server refused a request of a test."""


class ApiServer:
    """Requests of the administrator, whose certificate is beside the kubeconfig.

    Args:
        kubeconfig: That of a ``ControlPlane``.
    """

    def __init__(self, kubeconfig: Path) -> None:
        authority = Authority(kubeconfig.parent / "pki")
        cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._pool = urllib3.PoolManager(
            ca_certs=str(authority.certificate),
            cert_file=str(authority.folder / "admin.crt"),
            key_file=str(authority.folder / "admin.key"),
        )

    def get(self, kind: str, namespace: str | None, name: str = "") -> dict[str, Any]:
        """Return an object, or without a name the list of them, as kubectl shows them."""
        found = self._send("GET", _path(kind, namespace, name))
        for item in found.get("items", [found]):
            item["metadata"].pop("managedFields", None)
        return found

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Create an object."""
        kind, namespace, _ = _place(manifest)
        return self._send("POST", _path(kind, namespace), manifest)

    def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Create an object, or give it these fields, whoever owns them."""
        path = f"{_path(*_place(manifest))}?fieldManager=tests&force=true"
        return self._send("PATCH", path, manifest, "application/apply-patch+yaml")

    def merge(
        self, kind: str, namespace: str | None, name: str, patch: dict[str, Any], of: str = ""
    ) -> dict[str, Any]:
        """Merge a patch into an object, or into its subresource ``of``."""
        path = _path(kind, namespace, name) + (f"/{of}" if of else "")
        return self._send("PATCH", path, patch, "application/merge-patch+json")

    def delete(self, kind: str, namespace: str | None, name: str) -> None:
        """Delete an object, without waiting until it is gone."""
        self._send("DELETE", _path(kind, namespace, name))

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        headers = {"Content-Type": content, "Accept": "application/json"}
        text = None if body is None else json.dumps(body)
        answer = self._pool.request(method, f"{self._server}/{path}", body=text, headers=headers)
        found: dict[str, Any] = json.loads(answer.data)
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {found.get('message')}")
        return found


@functools.cache
def api_server(kubeconfig: Path) -> ApiServer:
    """Return the connections of the administrator, which all tests share."""
    return ApiServer(kubeconfig)


def _place(manifest: dict[str, Any]) -> tuple[str, str | None, str]:
    metadata = manifest["metadata"]
    return manifest["kind"].lower(), metadata.get("namespace"), metadata["name"]


def _path(kind: str, namespace: str | None, name: str = "") -> str:
    words = (
        *(VERSIONS[kind], namespace and f"namespaces/{namespace}"),
        *(f"{kind}s", name),
    )
    return "/".join(word for word in words if word)
