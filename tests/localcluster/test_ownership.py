"""`down` and `up` touch the machine only for the cluster that is theirs."""

import pytest

from localcluster import folders, lifecycle
from localcluster.cluster_kind import ClusterKind
from localcluster.steps import FatalError, StepRunner


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """State and sockets of our own; what would touch the whole machine is written down instead."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(folders, "sockets", lambda: tmp_path / "run")
    monkeypatch.setattr(lifecycle, "foreign_kubelet", lambda _: "")
    (tmp_path / "run").mkdir()
    folders.state().mkdir(parents=True)
    touched = []
    monkeypatch.setattr(lifecycle, "_down_local", lambda _: touched.append("machine"))
    return touched


@pytest.fixture
def steps(tmp_path):
    steps = StepRunner.silent(tmp_path)
    yield steps
    steps.close()


def started_local():
    (folders.state() / "choice").write_text(ClusterKind.LOCAL)


def test_down_where_nothing_was_started_leaves_the_machine_alone(machine, steps):
    lifecycle.down(steps)
    assert machine == []


def test_down_removes_what_was_started(machine, steps):
    started_local()
    lifecycle.down(steps)
    assert machine == ["machine"]
    assert not folders.state().exists()


def test_down_keeps_the_cache_and_clean_removes_it(machine, steps, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folders.cache() / "bin").mkdir(parents=True)
    started_local()
    lifecycle.down(steps)
    assert folders.cache().exists()

    folders.state().mkdir(parents=True)
    started_local()
    lifecycle.clean(steps)
    assert not folders.cache().exists()
    assert machine == ["machine", "machine"]


def test_down_removes_what_a_lost_state_folder_left(machine, steps):
    (folders.sockets() / "owner").write_text(str(folders.state()))
    lifecycle.down(steps)
    assert machine == ["machine"]


def test_down_of_another_folder_leaves_the_cluster_of_its_owner_alone(machine, steps, tmp_path):
    started_local()
    (folders.sockets() / "owner").write_text(str(tmp_path))
    with pytest.raises(FatalError, match="already runs the local cluster of"):
        lifecycle.down(steps)
    assert machine == []


def test_down_on_a_node_of_another_cluster_leaves_its_pods_alone(machine, steps, monkeypatch):
    started_local()
    monkeypatch.setattr(lifecycle, "foreign_kubelet", lambda _: "/usr/bin/k3s server")
    with pytest.raises(FatalError, match="node of another cluster"):
        lifecycle.down(steps)
    assert machine == []
