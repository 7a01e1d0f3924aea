"""Start, stop and status of the whole: which cluster is touched, and in which order it starts."""

import json
from pathlib import Path

import pytest

from localcluster import folders, lifecycle
from localcluster.cluster_kind import ClusterKind
from localcluster.steps import FatalError, StepRunner
from tests.localcluster.stand_ins import StandIns


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """State and sockets of our own; what would touch the whole machine is recorded instead."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(folders, "sockets", lambda: tmp_path / "run")
    monkeypatch.setattr(lifecycle, "foreign_kubelet", lambda _: "")
    (tmp_path / "run").mkdir()
    folders.state().mkdir(parents=True)
    touched = []
    monkeypatch.setattr(lifecycle, "_down_local", lambda _: touched.append("machine"))
    return touched


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


def test_for_images_of_the_current_cluster_its_registry_is_enough(monkeypatch, own_folders):
    monkeypatch.setenv("CLUSTER", "current")
    monkeypatch.setenv("REGISTRY", "registry.example/team")
    monkeypatch.delenv("S3_ENDPOINT", raising=False)

    target = lifecycle.image_target(lambda: pytest.fail("nothing is started"))
    assert target.registry == "registry.example/team"
    assert target.kind is ClusterKind.CURRENT
    assert lifecycle.remembered_kind() is None


def test_images_in_a_registry_that_is_not_ours_stay(monkeypatch, steps):
    monkeypatch.setattr(lifecycle, "remembered_kind", lambda: ClusterKind.CURRENT)
    monkeypatch.setenv("PATH", "")  # nothing can be run
    lifecycle.delete_unused_images([], steps)


# --- clusters in Docker -------------------------------------------------------------------------


class RecordedServices:
    """Stands in for the registry and the S3 server: it records which is started when."""

    registry, registry_port, secret_key = "127.0.0.1:20123", 20123, "hush"

    def __init__(self, calls: list[str], gateway: str) -> None:
        self._calls, self.endpoint = calls, f"http://{gateway}:20124"

    def start_registry(self, _: StepRunner) -> None:
        self._calls.append("registry")

    def start_storage(self, _: StepRunner) -> None:
        self._calls.append(f"storage at {self.endpoint}")


@pytest.fixture
def docker_machine(own_folders, stand_ins: StandIns, monkeypatch) -> list[str]:
    """A machine with kind, docker and kubectl (stand-ins); the services are recorded."""
    gateway = json.dumps([{"IPAM": {"Config": [{"Gateway": "172.18.0.1"}]}}])
    stand_ins.add("kind", "docker", "kubectl")
    stand_ins.answer("docker version", "29.1.0\n")
    stand_ins.answer("docker network inspect kind", gateway)
    stand_ins.answer("kind get kubeconfig", "kind: Config\n")
    stand_ins.answer("kubectl --kubeconfig", "node/flashrun-control-plane patched\n")
    folder = stand_ins.folder.parent / "state/flashrun/local"
    nodes = f"kubectl --kubeconfig={folder / 'kubeconfig'} get nodes"
    stand_ins.answer(nodes, "node/flashrun-control-plane\n")
    monkeypatch.setenv("CLUSTER", "kind")
    services: list[str] = []
    monkeypatch.setattr(
        lifecycle, "_docker_services", lambda gateway: RecordedServices(services, gateway)
    )
    return services


def test_with_docker_the_registry_comes_first_and_storage_listens_at_the_gateway(
    docker_machine, stand_ins, steps
):
    running = lifecycle.up(steps)
    assert docker_machine == ["registry", "storage at http://172.18.0.1:20124"]
    assert running.kind is ClusterKind.KIND
    assert running.registry == "127.0.0.1:20123"
    assert running.storage_endpoint == "http://172.18.0.1:20124"
    assert running.host_ip == "172.18.0.1"
    assert lifecycle.remembered_kind() is ClusterKind.KIND


def test_the_nodes_of_docker_advertise_gpus(docker_machine, stand_ins, steps):
    running = lifecycle.up(steps)
    [line] = [line for line in stand_ins.lines() if " patch " in line]
    gpus = {"nvidia.com/gpu": "8"}
    assert line == (
        f"kubectl --kubeconfig={running.kubeconfig} patch node/flashrun-control-plane "
        f"--subresource=status -p {json.dumps({'status': {'capacity': gpus, 'allocatable': gpus}})}"
    )


def test_a_cluster_of_docker_is_there_until_it_is_stopped(docker_machine, stand_ins, steps):
    with pytest.raises(FatalError, match="no cluster is running; start one with `make up`"):
        lifecycle.existing_cluster()
    running = lifecycle.up(steps)
    assert lifecycle.existing_cluster() == running


def test_another_kind_of_cluster_is_refused_while_one_runs(
    docker_machine, stand_ins, steps, monkeypatch
):
    lifecycle.up(steps)
    stand_ins.add("k3d")
    monkeypatch.setenv("CLUSTER", "k3d")
    with pytest.raises(FatalError, match="of the kind kind is running, but k3d was requested"):
        lifecycle.up(steps)


def test_two_commands_do_not_change_one_cluster_at_once(own_folders, tmp_path):
    with lifecycle.exclusive_command(), lifecycle.exclusive_command():
        lock = tmp_path / "state/flashrun/lock"
        held = Path(lock).read_text()
        lifecycle._HELD.discard(str(lock))  # as another process would see it
        with pytest.raises(FatalError, match=rf"another command \(pid {held}\) is changing"):
            lifecycle.exclusive_command().__enter__()
