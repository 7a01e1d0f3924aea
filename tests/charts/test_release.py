"""A release on a real API server: installed, upgraded, rolled back and uninstalled by helm."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.charts.conftest import CHART, NEEDED
from tests.controller.stage import flash_run
from tests.servers import install_crd, kubectl

SYSTEM, TEAM = "release-system", "release-team"
KINDS = (
    "deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,"
    "resourcequotas,clusterroles,clusterrolebindings,validatingadmissionpolicies,"
    "validatingadmissionpolicybindings"
)
HERE = (None, SYSTEM, TEAM)
OURS = "app.kubernetes.io/instance=flashrun"
MORE = {
    "operator": {"replicas": 2},
    "policies": [{"models": ["Qwen/*"]}],
    "quotas": {TEAM: {"count/flashruns.flashrun.dev": 5}},
    "monitoring": {"dashboard": True},
}


@pytest.fixture
def release(each_helm: Path, installed: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A function that runs helm on the cluster; the CRD is afterwards as other tests expect it."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}}
    kubectl(installed, "apply", "-f", "-", stdin=json.dumps(namespace))

    def run(*words: str, **values: object) -> str:
        given = tmp_path / "values.yaml"
        given.write_text(yaml.safe_dump(NEEDED | {"namespaces": [TEAM]} | values))
        install = ["--values", str(given)] if words[0] in ("install", "upgrade") else []
        command = [each_helm, "--kubeconfig", installed, "-n", SYSTEM, *words, *install]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    install_crd(installed)
    kubectl(installed, "delete", "flashruns", "--all", "-n", TEAM)


def test_a_release_comes_changes_goes_back_and_goes_and_every_run_stays(
    release: Callable[..., str], installed: Path
) -> None:
    def objects(*words: str) -> list[dict]:
        return list(json.loads(kubectl(installed, "get", *words, "-ojson"))["items"])

    def owned() -> set[tuple[str, str]]:
        found = objects(KINDS, "--all-namespaces", "-l", OURS)
        # Others have followed namespaces by a selector, and left them with what they had there.
        found = [item for item in found if item["metadata"].get("namespace") in HERE]
        assert [item for item in found if "deletionTimestamp" in item["metadata"]] == []
        return {(item["kind"], item["metadata"]["name"]) for item in found}

    def run() -> dict:
        [found] = objects("flashruns", "-n", TEAM)
        return found

    # The CRD of the cluster belongs to no release yet.
    release("install", "flashrun", str(CHART), "--create-namespace", "--take-ownership")
    first = owned()
    kubectl(installed, "create", "-f", "-", stdin=json.dumps(flash_run(TEAM, "flash-1-0a1b2c3d")))
    kubectl(
        installed, "patch", "flashrun", "flash-1-0a1b2c3d", "-n", TEAM, "--subresource", "status",
        "--type", "merge", "-p", '{"status": {"phase": "Running"}}',
    )  # fmt: skip
    before = run()

    changed = {**MORE, "operator": NEEDED["operator"] | MORE["operator"]}
    release("upgrade", "flashrun", str(CHART), **changed)
    policy = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert {kind for kind, _ in owned() - first} == policy | {"ResourceQuota", "ConfigMap"}
    assert run() == before

    release("rollback", "flashrun", "1")
    assert owned() == first
    assert run() == before

    release("uninstall", "flashrun", "--wait")
    assert owned() == set()
    assert run() == before
    crd = json.loads(kubectl(installed, "get", "crd", "flashruns.flashrun.dev", "-ojson"))
    assert "deletionTimestamp" not in crd["metadata"]
    secrets = objects("secrets", "-n", SYSTEM, "-l", "owner=helm")
    assert secrets == []
