"""Kueue's own manager, built from its module, for an API server of the tests.

It runs in a root folder of its own, because its image has its certificates at fixed places. Its
webhooks, the conversion between versions and its visibility API are installed as in a cluster, but
by address: a test's API server reaches no Service.
"""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from localcluster import toolchain
from localcluster.pki import Authority
from localcluster.ports import Ports
from localcluster.process import Daemons
from localcluster.steps import StepRunner
from tests.controller.kueue import module_folder
from tests.servers import kubectl, wait_until_served

SYSTEM = "kueue-system"
CERTIFICATES = ("webhooks", "visibility", "etc/kueue/metrics/certs")
VISIBILITY = "visibility.kueue.x-k8s.io"
READY_SECONDS = 120
Object = dict[str, Any]


@contextmanager
def kueue_manager(kubeconfig: Path, folder: Path) -> Iterator[Daemons]:
    """Run the manager until the end of the context, and leave nothing of it."""
    root, authority, ports = folder / "root", Authority(folder / "pki"), Ports(folder / "ports")
    _fill_root(root, authority, kubeconfig, ports, folder)
    installed = json.dumps(_definitions(ports, authority))
    hooks = json.dumps(_webhooks(ports, authority))
    kubectl(kubeconfig, "create", "namespace", SYSTEM)
    kubectl(kubeconfig, "create", "-f", "-", stdin=installed)
    wait_until_served(kubeconfig, "workloads,localqueues,clusterqueues,resourceflavors")
    daemons = Daemons(folder / "servers", ephemeral=True)
    argv = ["unshare", "--map-root-user", f"--root={root}", "/manager", "--config=/config.yaml"]
    daemons.start("kueue", [*argv, "--kubeconfig=/kubeconfig"], {"POD_NAMESPACE": SYSTEM})
    try:
        daemons.wait("kueue", lambda: "Serving webhook server" in _log(daemons), READY_SECONDS)
        kubectl(kubeconfig, "create", "-f", "-", stdin=hooks)
        served = json.dumps(_visibility(ports))
        kubectl(kubeconfig, "create", "-f", "-", stdin=served)
        words = ("apiservice", "-l", "test=kueue", f"--timeout={READY_SECONDS}s")
        kubectl(kubeconfig, "wait", "--for=condition=Available", *words)
        yield daemons
        kubectl(kubeconfig, "delete", "-f", "-", stdin=served)
        kubectl(kubeconfig, "delete", "-f", "-", stdin=hooks)
    finally:
        daemons.stop("kueue")
        kubectl(kubeconfig, "delete", "namespace", SYSTEM, "--wait=false")


def _log(daemons: Daemons) -> str:
    return daemons.log("kueue").read_text()


def _fill_root(
    root: Path, authority: Authority, kubeconfig: Path, ports: Ports, folder: Path
) -> None:
    """Lay out the files that the manager's image, and its volumes, have."""
    root.mkdir()
    (root / "tmp").mkdir()
    with closing(StepRunner.silent(folder)) as steps:
        shutil.copy(toolchain.program("kueue", steps), root / "manager")
    shutil.copy(kubeconfig, root / "kubeconfig")
    authority.create()
    leaf = authority.leaf("kueue", "/CN=kueue", ["IP:127.0.0.1"])
    for place in CERTIFICATES:
        (root / place).mkdir(parents=True)
        shutil.copy(leaf.certificate, root / place / "tls.crt")
        shutil.copy(leaf.key, root / place / "tls.key")
    address = "127.0.0.1"
    settings = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": SYSTEM,
        "health": {"healthProbeBindAddress": f"{address}:{ports.get('health')}"},
        "metrics": {"bindAddress": f"{address}:{ports.get('metrics')}"},
        "webhook": {"port": ports.get("webhooks"), "host": address, "certDir": "/webhooks"},
        "visibilityServer": {"bindAddress": address, "bindPort": ports.get("visibility")},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job"]},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(settings))


def _client(ports: Ports, authority: Authority, path: str) -> Object:
    """How the API server reaches a path of the manager."""
    bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
    return {"url": f"https://127.0.0.1:{ports.get('webhooks', running=True)}{path}",
            "caBundle": bundle}  # fmt: skip


def _definitions(ports: Ports, authority: Authority) -> Object:
    """Kueue's kinds, converted by the manager where its installation says so."""
    folder = module_folder() / "config/components/crd"
    converted = {path.stem.removeprefix("webhook_in_") for path in folder.glob("patches/webhook*")}
    items = []
    for path in sorted(folder.glob("bases/*.yaml")):
        crd = yaml.load(path.read_text(), yaml.CSafeLoader)
        if path.stem.partition("_")[2] in converted:
            webhook = {"clientConfig": _client(ports, authority, "/convert"),
                       "conversionReviewVersions": ["v1"]}  # fmt: skip
            crd["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        items.append(crd)
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _webhooks(ports: Ports, authority: Authority) -> Object:
    """Kueue's webhooks for Jobs and for its own kinds."""
    text = (module_folder() / "config/components/webhook/manifests.yaml").read_text()
    items = []
    for item in yaml.safe_load_all(text):
        kept = []
        for hook in item["webhooks"]:
            path = hook["clientConfig"]["service"]["path"]
            if "batch-v1-job" in path or "-kueue-x-k8s-io-" in path:
                kept.append({**hook, "clientConfig": _client(ports, authority, path)})
        items.append({**item, "webhooks": kept})
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _visibility(ports: Ports) -> Object:
    """Kueue's visibility API, behind a Service that is only a name for this machine."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "visibility-server", "namespace": SYSTEM},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    items = [service]
    for path in sorted((module_folder() / "config/components/visibility").glob("apiservice*")):
        api = yaml.safe_load(path.read_text())
        api["metadata"]["labels"] = {"test": "kueue"}
        api["spec"]["service"]["port"] = ports.get("visibility", running=True)
        items.append(api)
    return {"apiVersion": "v1", "kind": "List", "items": items}
