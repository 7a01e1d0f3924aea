"""Control planes for tests: no root, no fixed port, several at once, gone without a trace."""

import json
import subprocess
from pathlib import Path

import pytest

from localcluster import toolchain
from localcluster.controlplane import SERVERS, ControlPlane
from localcluster.steps import StepRunner

pytestmark = pytest.mark.api


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    steps = StepRunner.silent(tmp_path_factory.mktemp("steps"))
    yield steps
    steps.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory, steps):
    """Two control planes side by side, one of them without a scheduler."""
    both = [
        ControlPlane(tmp_path_factory.mktemp("one"), ephemeral=True),
        ControlPlane(tmp_path_factory.mktemp("two"), scheduler=False, ephemeral=True),
    ]
    for control in both:
        control.start(steps)
    yield both
    for control in both:
        control.remove()


def kubectl(control, steps, *arguments):
    program = toolchain.server("kubectl", steps)
    return subprocess.check_output([program, "--kubeconfig", control.kubeconfig, *arguments])


def test_each_has_its_own_namespaces(pair, steps):
    one, two = pair
    kubectl(one, steps, "create", "namespace", "only-here")
    names = kubectl(two, steps, "get", "namespaces", "-oname").decode()
    assert "only-here" not in names
    assert "namespace/default" in names


def test_controllers_work(pair, steps):
    one, _ = pair
    accounts = ["get", "serviceaccount", "default", "-ojson"]
    kubectl(one, steps, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    assert json.loads(kubectl(one, steps, *accounts))["metadata"]["name"] == "default"


def test_starting_again_changes_nothing(pair, steps):
    one, _ = pair
    before = {name: one.daemons.pid(name) for name in SERVERS}
    one.start(steps)
    assert {name: one.daemons.pid(name) for name in SERVERS} == before


def test_a_control_plane_that_crashed_half_way_starts_again(pair, steps):
    _, two = pair
    kubectl(two, steps, "create", "namespace", "kept")
    two.daemons.stop("kube-apiserver", grace=0)
    two.start(steps)
    assert b"namespace/kept" in kubectl(two, steps, "get", "namespaces", "-oname")


def test_nothing_is_left_after_removal(tmp_path, steps):
    control = ControlPlane(tmp_path / "brief", ephemeral=True)
    control.start(steps)
    pids = {control.daemons.pid(name) for name in SERVERS}
    control.remove()
    assert None not in pids
    assert not control.folder.exists()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
