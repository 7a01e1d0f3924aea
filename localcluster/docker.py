"""Clusters in a Docker engine: kind and k3d.

Storage and the image registry run on the host, as for the local cluster. Nodes reach them at the
gateway of their Docker network. Images are named after the registry's loopback address; nodes
have that address as a mirror of the gateway.
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
    """A cluster with one node, named flashrun, that `kind` or `k3d` runs."""

    tool: ClusterKind
    kubeconfig: Path

    @property
    def network(self) -> str:
        """The Docker network of the nodes."""
        return "kind" if self.tool is ClusterKind.KIND else f"k3d-{NAME}"

    def start(self, registry_port: int, steps: StepRunner) -> None:
        """Create the cluster unless it exists, and write its kubeconfig."""
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        with steps.step(f"start a cluster with {self.tool}") as step:
            if not self.exists():
                self._create(registry_port, steps)
            self._write_kubeconfig()
            if self.tool is ClusterKind.KIND:
                self._mirror_registry(registry_port, steps)
            step.detail = self.gateway()

    def stop(self, steps: StepRunner) -> None:
        """Delete the cluster, if it exists."""
        if not self.exists():
            return
        with steps.step(f"delete the {self.tool} cluster {NAME}"):
            if self.tool is ClusterKind.KIND:
                steps.run(["kind", "delete", "cluster", "--name", NAME])
            else:
                steps.run(["k3d", "cluster", "delete", NAME])

    def exists(self) -> bool:
        """Return whether the tool has a cluster of this name."""
        if self.tool is ClusterKind.KIND:
            return NAME in _output("kind", "get", "clusters").split()
        clusters = json.loads(_output("k3d", "cluster", "list", "-o", "json") or "[]")
        return any(cluster["name"] == NAME for cluster in clusters)

    def gateway(self) -> str:
        """Return the IPv4 address of the host on the network of the nodes.

        Raises:
            FatalError: the network does not exist or has only IPv6.
        """
        inspected = json.loads(_output("docker", "network", "inspect", self.network) or "[]")
        ranges = [r for network in inspected for r in network["IPAM"]["Config"]]
        address = next((r["Gateway"] for r in ranges if "." in r.get("Gateway", "")), None)
        if not address:
            raise FatalError(
                f"the Docker network {self.network} has no IPv4 gateway, so its nodes cannot "
                "reach this machine; use CLUSTER=local, or CLUSTER=current with storage of your own"
            )
        return str(address)

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
        """Write the mirror of 127.0.0.1:<port> into kind's nodes; k3d gets it at creation."""
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
    """Return what a program prints; empty when it is missing, fails or takes too long."""
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout if result.returncode == 0 else ""
