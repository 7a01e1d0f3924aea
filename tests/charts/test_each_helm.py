"""Helm 3 and Helm 4 make the same objects of the chart, and a cluster takes all of them."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.conftest import CHART, NEEDED
from tests.servers import kubectl

SYSTEM = "flashrun-system"
EVERYTHING: dict[str, Any] = {
    **NEEDED,
    "operator": {**NEEDED["operator"], "replicas": 2, "proxy": {"https_proxy": "http://p:1"}},
    "caBundle": "PEM",
    "trainer": {
        **NEEDED["trainer"], "queue": "team", "pipIndexUrl": "https://index.example/simple",
        "pipIndexSecret": "index",
    },
    "policies": [
        {"models": ["Qwen/*"], "environments": ["a/*"], "maxSteps": 5, "maxGpuHours": 2,
         "maxGpus": 1},
        {"namespaces": ["default"], "maxGpus": 2},
    ],
    "quotas": {"default": {"requests.nvidia.com/gpu": 8}},
    "budgets": {"default": {"gpuHoursPerMonth": 1}},
    "monitoring": {
        "podMonitor": True, "serviceMonitor": True, "prometheusRule": True, "dashboard": True,
    },
}  # fmt: skip
LABELS = {
    "matchLabels": {"a/b": "true"},
    "matchExpressions": [
        {"key": "c", "operator": "In", "values": ["d", "e"]},
        {"key": "f", "operator": "NotIn", "values": ["g"]},
        {"key": "h", "operator": "Exists"},
        {"key": "i", "operator": "DoesNotExist"},
    ],
}
VALUES = {
    "a list": EVERYTHING,
    "a selector": {**EVERYTHING, "namespaces": [], "namespaceSelector": LABELS},
    "all namespaces": {**EVERYTHING, "namespaces": [], "allNamespaces": True},
    "the default": NEEDED,
}
KINDS = ("PodMonitor", "ServiceMonitor", "PrometheusRule")
_made: dict[str, list[str]] = {}
"""What the other Helm has made of the values."""


@pytest.fixture(scope="module")
def with_prometheus(installed: Path) -> Iterator[Path]:
    """A cluster that knows the kinds of the Prometheus operator by name."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
    }  # fmt: skip
    group = "monitoring.coreos.com"
    definitions = [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{kind.lower()}s.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": f"{kind.lower()}s"},
                "versions": [version],
            },
        }
        for kind in KINDS
    ]
    text = yaml.safe_dump_all(definitions)
    kubectl(installed, "apply", "-f", "-", stdin=text)
    kubectl(installed, "wait", "--for=condition=Established", "-f", "-", stdin=text)
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    kubectl(installed, "apply", "-f", "-", stdin=json.dumps(system))
    # A pod is admitted when its service account exists.
    kubectl(installed, "create", "serviceaccount", "flashrun", "-n", SYSTEM)
    yield installed
    kubectl(installed, "delete", "serviceaccount", "flashrun", "-n", SYSTEM)
    kubectl(installed, "delete", "-f", "-", stdin=text)


@pytest.mark.parametrize("given", VALUES)
def test_either_helm_makes_the_same_objects_and_a_cluster_takes_them(
    each_helm: Path, with_prometheus: Path, tmp_path: Path, given: str
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES[given]))

    def helm(*words: str | Path) -> str:
        done = subprocess.run(
            [each_helm, *words, "--values", values], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    helm("lint", CHART, "--strict", "--namespace", SYSTEM)
    where = ("flashrun", CHART, "--namespace", SYSTEM)
    text = helm("template", *where, "--kube-version", "1.34.4")
    objects = [item for item in yaml.safe_load_all(text) if item]
    made = sorted(json.dumps(item, sort_keys=True) for item in objects)
    assert _made.setdefault(given, made) == made
    kubectl(
        with_prometheus,
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"),
        stdin=yaml.safe_dump_all(objects),
    )
    for item in objects:
        for inner in item.get("data", {}).get("namespace-objects.yaml", "").split("\n---\n"):
            if inner:
                kubectl(
                    *(with_prometheus, "apply", "--server-side", "--dry-run=server"),
                    *("-n", "default", "-f", "-"),
                    stdin=inner,
                )
