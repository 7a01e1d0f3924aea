"""Installing the Helm chart of this project with values for the running cluster."""

import json
import os
import subprocess
import tempfile
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from localcluster import folders, lifecycle, toolchain
from localcluster.cluster_kind import ClusterKind
from localcluster.images import CERTIFICATES, Images, pip_settings
from localcluster.lifecycle import DevCluster
from localcluster.node import GPU, GPUS
from localcluster.steps import StepRunner

RELEASE = "flashrun"
NAMESPACE = "flashrun-system"
RUNS = "default"
"""The namespace whose runs are served; the default of the chart."""
MODEL = "flashrun/tiny-qwen3"
MODEL_REVISION = "1"
PROXIES = ("http_proxy", "https_proxy", "no_proxy")


def install(
    local: DevCluster, images: Images, steps: StepRunner, more: Mapping[str, Any], threads: int = 1
) -> None:
    """Install or upgrade the chart, with `more` values, and wait until the operator is ready.

    On a developer's machine, each process of a trainer pod has so many `threads`.
    """
    helm = toolchain.program("helm", steps)
    folder = folders.repository() / "charts" / "flashrun"
    with steps.step("install the Helm chart") as step, tempfile.TemporaryDirectory() as scratch:
        if local.kind is not ClusterKind.CURRENT:
            _restrict_pods(steps)
            _create_upstream_secrets(steps)
        _uninstall_interrupted(helm, local, steps)
        file = Path(scratch) / "values.yaml"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(_merge(values(local, images, threads), dict(more))))
        where = [RELEASE, folder, "--namespace", NAMESPACE, "--create-namespace"]
        how = ["--values", file, "--wait", "--timeout", "180s"]
        steps.run(
            [helm, "upgrade", "--install", *where, *how],
            env=_environment(local),
            what="installing the Helm chart",
        )
        step.detail = f"the operator is ready in namespace {NAMESPACE}"


def values(local: DevCluster, images: Images, threads: int = 1) -> dict[str, Any]:
    """Return the values: a small pool for a local node; the defaults of the chart elsewhere."""
    common: dict[str, Any] = {
        "operator": {"image": images.operator},
        "storage": {
            "endpoint": local.storage_endpoint,
            "accessKey": local.access_key,
            "secretKey": local.secret_key,
        },
        "trainer": {"image": images.trainer},
        "models": [catalog_entry(MODEL)],
        "mirrorReadable": True,
        "environments": {"owners": {"examples": [RUNS]}},
    }
    if local.kind is ClusterKind.CURRENT:
        return common
    return _merge(common, _developer_values(threads))


def catalog_entry(name: str, **needs: float) -> dict[str, Any]:
    """Return the catalog entry of the tiny model as `name`; `needs` are its needs of GPUs."""
    where = {"source": "mirror", "revision": MODEL_REVISION}
    return {"id": name, "parameters": 0.0002, **where, **needs}


def _restrict_pods(steps: StepRunner) -> None:
    """Make the API server refuse pods that violate the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    spaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name in (NAMESPACE, RUNS)
    ]
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": spaces})
    apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
    steps.run(lifecycle.kubectl(apply, steps), stdin=objects, what="kubectl apply")


def _developer_values(threads: int) -> dict[str, Any]:
    """Return the values of a developer's machine: one small pool, few cores, its own network."""
    return {
        "caBundle": CERTIFICATES.read_text() if CERTIFICATES.exists() else "",
        "trainer": {
            **_upstreams()[0],
            # The tiny model trains many times slower with several threads. Threads that wait must
            # not take the cores of other pods.
            "environment": {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
            "sharedMemory": "256Mi",
        },
        "pools": [
            {
                "name": "local",
                "resource": GPU,
                "gpusPerNode": GPUS,
                "vram": 80,
                "cpu": "100m",
                "memory": "6Gi",
            }
        ],
    }


def _upstreams() -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Return the settings of index and proxy as they are here, and the Secrets that they name.

    The chart takes no address with a password in it.
    """
    index, of_index = _split_address(pip_settings().get("index-url", ""))
    proxies = {name: _split_address(os.environ[name]) for name in PROXIES if os.environ.get(name)}
    settings: dict[str, Any] = {
        "pipIndexUrl": index,
        "proxy": {name: address for name, (address, _) in proxies.items()},
    }
    secrets = {}
    of_proxy = next((keys for _, keys in proxies.values() if keys), {})
    for setting, keys in (("pipIndexSecret", of_index), ("proxySecret", of_proxy)):
        if keys:
            name = settings[setting] = f"flashrun-{setting.removesuffix('Secret').lower()}"
            secrets[name] = keys
    return settings, secrets


def _split_address(address: str) -> tuple[str, dict[str, str]]:
    """Return an address without its user, and the user and the password, if it has both."""
    try:
        url = urllib.parse.urlsplit(address)
    except ValueError:
        return address, {}
    if not url.username or not url.password:
        return address, {}
    keys = {"username": url.username, "password": url.password}
    plain = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    return plain, {key: urllib.parse.unquote(value) for key, value in keys.items()}


def _create_upstream_secrets(steps: StepRunner) -> None:
    """Create the Secrets that the values of a developer's cluster name, if any."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    secrets = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "stringData": keys,
        }
        for name, keys in _upstreams()[1].items()
    ]
    if secrets:
        objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": [namespace, *secrets]})
        apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
        steps.run(lifecycle.kubectl(apply, steps), stdin=objects, what="kubectl apply")


def _merge(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    both = {k: base[k] | more[k] for k in base.keys() & more.keys() if isinstance(base[k], dict)}
    return base | more | both


def _uninstall_interrupted(helm: Path, local: DevCluster, steps: StepRunner) -> None:
    """Uninstall a release whose installation was interrupted; Helm refuses to upgrade it."""
    where = ["--namespace", NAMESPACE]
    ask = subprocess.run(
        [helm, "status", RELEASE, *where, "--output", "json"],
        env={**os.environ, **_environment(local)},
        capture_output=True,
        text=True,
    )
    if ask.returncode == 0 and json.loads(ask.stdout)["info"]["status"].startswith("pending"):
        remove = [helm, "uninstall", RELEASE, *where, "--wait"]
        steps.run(remove, env=_environment(local), what="removing an interrupted Helm release")


def _environment(local: DevCluster) -> dict[str, str]:
    return {"KUBECONFIG": str(local.kubeconfig), "HELM_CACHE_HOME": str(folders.cache() / "helm")}
