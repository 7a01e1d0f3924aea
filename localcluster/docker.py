"""Clusters that a Docker engine runs: kind and k3d.

Storage and the registry run on the host as they do for the local cluster; nodes reach them at
the gateway of their Docker network, and the registry's loopback name is mirrored to it.
"""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from localcluster.cluster_kind import ClusterKind
from localcluster.steps import FatalError, StepRunner

NAME = "flashrun"


@dataclass(frozen=True)
class DockerCluster:
    """A cluster of one node, named flashrun, made by `kind` or `k3d`."""

    tool: ClusterKind
    kubeconfig: Path

    @property
    def network(self) -> str:
        """The Docker network the nodes are on."""
        return "kind" if self.tool is ClusterKind.KIND else f"k3d-{NAME}"

    def start(self, registry_port: int, steps: StepRunner) -> None:
        """Create the cluster unless it is there, and write its kubeconfig."""
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        with steps.step(f"start a cluster with {self.tool}") as step:
            if not self.exists():
                self._create(registry_port, steps)
            self._write_kubeconfig()
            if self.tool is ClusterKind.KIND:
                self._mirror_registry(registry_port, steps)
            step.detail = self.gateway()

    def stop(self, steps: StepRunner) -> None:
        """Delete the cluster; one that is not there is fine."""
        if not self.exists():
            return
        with steps.step(f"delete the {self.tool} cluster {NAME}"):
            if self.tool is ClusterKind.KIND:
                steps.run(["kind", "delete", "cluster", "--name", NAME])
            else:
                steps.run(["k3d", "cluster", "delete", NAME])

    def exists(self) -> bool:
        """Whether the tool knows a cluster of our name."""
        if self.tool is ClusterKind.KIND:
            return NAME in _output("kind", "get", "clusters").split()
        clusters = json.loads(_output("k3d", "cluster", "list", "-o", "json") or "[]")
        return any(cluster["name"] == NAME for cluster in clusters)

    def gateway(self) -> str:
        """The host's IPv4 address on the nodes' network."""
        inspected = json.loads(_output("docker", "network", "inspect", self.network) or "[]")
        ranges = [r for network in inspected for r in network["IPAM"]["Config"]]
        found = next((r["Gateway"] for r in ranges if "." in r.get("Gateway", "")), None)
        if not found:
            raise FatalError(
                f"the Docker network {self.network} has no IPv4 gateway, so its nodes cannot "
                "reach this machine; use CLUSTER=local, or CLUSTER=current with storage of your own"
            )
        return str(found)

    def _create(self, registry_port: int, steps: StepRunner) -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.yaml"
            if self.tool is ClusterKind.KIND:
                config.write_text(yaml.safe_dump(_kind_config()))
                target = ["--config", config, "--kubeconfig", self.kubeconfig, "--wait", "120s"]
                steps.run(["kind", "create", "cluster", "--name", NAME, *target])
            else:
                config.write_text(yaml.safe_dump(_k3d_registries(registry_port)))
                flags = ["--registry-config", config, "--kubeconfig-update-default=false"]
                steps.run(["k3d", "cluster", "create", NAME, *flags, "--wait"])

    def _write_kubeconfig(self) -> None:
        if self.tool is ClusterKind.KIND:
            text = _output("kind", "get", "kubeconfig", "--name", NAME)
        else:
            text = _output("k3d", "kubeconfig", "get", NAME)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(text)

    def _mirror_registry(self, registry_port: int, steps: StepRunner) -> None:
        """Tell kind's nodes where 127.0.0.1:<port> is; k3d was told when it was created."""
        hosts = f'server = "http://{self.gateway()}:{registry_port}"\n'
        folder = f"/etc/containerd/certs.d/127.0.0.1:{registry_port}"
        script = f"mkdir -p {folder} && printf '%s' '{hosts}' > {folder}/hosts.toml"
        for node in _output("kind", "get", "nodes", "--name", NAME).split():
            steps.run(["docker", "exec", node, "sh", "-c", script])


def _kind_config() -> dict[str, object]:
    plugin = 'plugins."io.containerd.grpc.v1.cri".registry'
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "containerdConfigPatches": [f'[{plugin}]\nconfig_path = "/etc/containerd/certs.d"\n'],
    }


def _k3d_registries(registry_port: int) -> dict[str, object]:
    endpoint = f"http://host.k3d.internal:{registry_port}"
    return {"mirrors": {f"127.0.0.1:{registry_port}": {"endpoint": [endpoint]}}}


def _output(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
