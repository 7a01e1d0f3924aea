"""The command lines of kind, k3d and docker, against recording stand-ins for the three programs.

No Docker engine is needed. The stand-ins print what the real programs print, in their formats.
"""

import json
import stat
from pathlib import Path

import pytest
import yaml

from localcluster.cluster_kind import ClusterKind
from localcluster.docker import DockerCluster
from localcluster.steps import FatalError, StepRunner
from tests.localcluster.stand_ins import StandIns

PORT = 20123
KUBECONFIG = "apiVersion: v1\nkind: Config\ncurrent-context: kind-flashrun\n"
MIRROR = "/etc/containerd/certs.d/127.0.0.1:20123"


def network(*ranges: dict[str, str]) -> str:
    """What `docker network inspect` prints."""
    ipam = {"Driver": "default", "Options": {}, "Config": list(ranges)}
    return json.dumps([{"Name": "kind", "Driver": "bridge", "IPAM": ipam}], indent=4) + "\n"


IPV6 = {"Subnet": "fc00:f853:ccd:e793::/64", "Gateway": "fc00:f853:ccd:e793::1"}
IPV4 = {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}


@pytest.fixture
def kind(stand_ins: StandIns) -> StandIns:
    """kind and docker without any cluster; a cluster that is created has one node."""
    stand_ins.add("kind", "docker")
    stand_ins.answer("kind get clusters", "")  # "No kind clusters found." goes to stderr
    stand_ins.answer("kind create cluster", 'Creating cluster "flashrun" ...\n')
    stand_ins.answer("kind get kubeconfig", KUBECONFIG)
    stand_ins.answer("kind get nodes", "flashrun-control-plane\n")
    stand_ins.answer("docker network inspect kind", network(IPV6, IPV4))
    return stand_ins


@pytest.fixture
def k3d(stand_ins: StandIns) -> StandIns:
    """k3d and docker without any cluster."""
    stand_ins.add("k3d", "docker")
    stand_ins.answer("k3d cluster list", "[]\n")
    stand_ins.answer("k3d cluster create", "INFO[0000] Prep: Network\n")
    stand_ins.answer("k3d kubeconfig get", KUBECONFIG)
    stand_ins.answer("docker network inspect k3d-flashrun", network(IPV4))
    return stand_ins


def cluster(tool: ClusterKind, folder: Path) -> DockerCluster:
    return DockerCluster(tool, folder / "state" / "kubeconfig")


def without_folder(line: str) -> str:
    """A command line with the name of the temporary config file left out."""
    return " ".join("CONFIG" if word.endswith("/config.yaml") else word for word in line.split(" "))


def test_kind_gets_a_cluster_its_kubeconfig_and_the_mirror_of_the_registry(
    kind: StandIns, tmp_path: Path, steps: StepRunner
) -> None:
    new = cluster(ClusterKind.KIND, tmp_path)
    new.start(PORT, steps)
    assert [without_folder(line) for line in kind.lines()] == [
        "kind get clusters",
        f"kind create cluster --name flashrun --config CONFIG --kubeconfig {new.kubeconfig} "
        "--wait 120s",
        "kind get kubeconfig --name flashrun",
        "docker network inspect kind",
        "kind get nodes --name flashrun",
        f"docker exec flashrun-control-plane sh -c mkdir -p {MIRROR} && printf '%s' "
        f"'server = \"http://172.18.0.1:{PORT}\"\n' > {MIRROR}/hosts.toml",
        "docker network inspect kind",
    ]


def test_kind_is_configured_to_read_the_mirror(
    kind: StandIns, tmp_path: Path, steps: StepRunner
) -> None:
    cluster(ClusterKind.KIND, tmp_path).start(PORT, steps)
    [text] = [text for call in kind.calls() for text in call["files"].values()]
    config = yaml.safe_load(text)
    assert (config["kind"], config["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    [patch] = config["containerdConfigPatches"]
    assert 'config_path = "/etc/containerd/certs.d"' in patch


def test_k3d_gets_a_cluster_with_the_mirror_and_its_kubeconfig(
    k3d: StandIns, tmp_path: Path, steps: StepRunner
) -> None:
    cluster(ClusterKind.K3D, tmp_path).start(PORT, steps)
    assert [without_folder(line) for line in k3d.lines()] == [
        "k3d cluster list -o json",
        "k3d cluster create flashrun --registry-config CONFIG --kubeconfig-update-default=false "
        "--wait",
        "k3d kubeconfig get flashrun",
        "docker network inspect k3d-flashrun",
    ]
    [text] = [text for call in k3d.calls() for text in call["files"].values()]
    assert yaml.safe_load(text) == {
        "mirrors": {"127.0.0.1:20123": {"endpoint": ["http://host.k3d.internal:20123"]}}
    }


@pytest.mark.parametrize("tool", ["kind", "k3d"])
def test_only_the_owner_may_read_the_kubeconfig(
    tool: str, request: pytest.FixtureRequest, tmp_path: Path, steps: StepRunner
) -> None:
    request.getfixturevalue(tool)
    new = cluster(ClusterKind(tool), tmp_path)
    new.start(PORT, steps)
    assert new.kubeconfig.read_text() == KUBECONFIG
    assert stat.S_IMODE(new.kubeconfig.stat().st_mode) == 0o600


def test_a_cluster_that_exists_is_not_created_again(
    kind: StandIns, k3d: StandIns, tmp_path: Path, steps: StepRunner
) -> None:
    kind.answer("kind get clusters", "other\nflashrun\n")
    k3d.answer("k3d cluster list", json.dumps([{"name": "other"}, {"name": "flashrun"}]))
    for tool in (ClusterKind.KIND, ClusterKind.K3D):
        cluster(tool, tmp_path).start(PORT, steps)
    assert [line for line in kind.lines() if " create " in line] == []


def test_a_cluster_of_another_name_is_not_ours(
    kind: StandIns, k3d: StandIns, tmp_path: Path
) -> None:
    kind.answer("kind get clusters", "flashrun-2\n")
    k3d.answer("k3d cluster list", json.dumps([{"name": "flashrun-2"}]))
    for tool in (ClusterKind.KIND, ClusterKind.K3D):
        assert not cluster(tool, tmp_path).exists()


STOPS = {
    ClusterKind.KIND: ["kind get clusters", "kind delete cluster --name flashrun"],
    ClusterKind.K3D: ["k3d cluster list -o json", "k3d cluster delete flashrun"],
}


@pytest.mark.parametrize(("tool", "lines"), STOPS.items())
def test_a_cluster_is_deleted_by_its_tool(
    kind: StandIns,
    k3d: StandIns,
    tmp_path: Path,
    steps: StepRunner,
    tool: ClusterKind,
    lines: list[str],
) -> None:
    kind.answer("kind get clusters", "flashrun\n")
    k3d.answer("k3d cluster list", json.dumps([{"name": "flashrun"}]))
    cluster(tool, tmp_path).stop(steps)
    assert kind.lines() == lines


@pytest.mark.parametrize(("tool", "lines"), STOPS.items())
def test_a_cluster_that_does_not_exist_is_not_deleted(
    kind: StandIns,
    k3d: StandIns,
    tmp_path: Path,
    steps: StepRunner,
    tool: ClusterKind,
    lines: list[str],
) -> None:
    cluster(tool, tmp_path).stop(steps)
    assert kind.lines() == lines[:1]


def test_the_host_is_reached_at_the_ipv4_gateway(kind: StandIns, tmp_path: Path) -> None:
    assert cluster(ClusterKind.KIND, tmp_path).gateway() == "172.18.0.1"


NO_GATEWAY = {
    "a network with IPv6 alone": (0, network(IPV6)),
    "a range without a gateway": (0, network({"Subnet": "172.18.0.0/16"})),
    "a network that does not exist": (1, "[]\n"),
}


@pytest.mark.parametrize(("status", "output"), NO_GATEWAY.values(), ids=NO_GATEWAY.keys())
def test_a_network_without_an_ipv4_gateway_ends_in_a_sentence(
    kind: StandIns, tmp_path: Path, status: int, output: str
) -> None:
    kind.answer("docker network inspect kind", output, status)
    with pytest.raises(FatalError) as error:
        cluster(ClusterKind.KIND, tmp_path).gateway()
    assert str(error.value) == (
        "the Docker network kind has no IPv4 gateway, so its nodes cannot reach this machine; "
        "use CLUSTER=local, or CLUSTER=current with storage of your own"
    )


FAILURES = {
    "kind cannot create": (
        ClusterKind.KIND,
        "kind create cluster",
        'Creating cluster "flashrun" ...\nERROR: failed to create cluster: port is in use\n',
        "kind failed with status 1: ERROR: failed to create cluster: port is in use",
    ),
    "k3d cannot create": (
        ClusterKind.K3D,
        "k3d cluster create",
        "FATA[0001] Cluster creation FAILED\n",
        "k3d failed with status 1: FATA[0001] Cluster creation FAILED",
    ),
    "a node does not take the mirror": (
        ClusterKind.KIND,
        "docker exec",
        "Error response from daemon: container is not running\n",
        "docker failed with status 1: Error response from daemon: container is not running",
    ),
}


@pytest.mark.parametrize(
    ("tool", "beginning", "output", "sentence"), FAILURES.values(), ids=FAILURES.keys()
)
def test_a_tool_that_fails_ends_in_its_last_line(
    kind: StandIns,
    k3d: StandIns,
    tmp_path: Path,
    steps: StepRunner,
    tool: ClusterKind,
    beginning: str,
    output: str,
    sentence: str,
) -> None:
    kind.answer(beginning, output, status=1)
    with pytest.raises(FatalError) as error:
        cluster(tool, tmp_path).start(PORT, steps)
    assert str(error.value).startswith(sentence)
    assert str(steps.log) in str(error.value)


@pytest.mark.parametrize("tool", [ClusterKind.KIND, ClusterKind.K3D])
def test_a_tool_that_is_missing_is_named(
    stand_ins: StandIns, tmp_path: Path, steps: StepRunner, tool: ClusterKind
) -> None:
    with pytest.raises(FatalError, match=f"the program {tool} is missing; install it"):
        cluster(tool, tmp_path).start(PORT, steps)
