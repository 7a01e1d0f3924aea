"""The DNS server of the cluster: CoreDNS, a process of this machine behind the Service `kube-dns`.

As a process it needs no image. It listens on the bridge, at a port of its own, because another
program may use port 53; the Service maps the usual address and port to it. Questions about other
names go to the name servers of this machine, which may be on a loopback address.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import toolchain
from localcluster.controlplane import DNS_SERVICE, DOMAIN, ControlPlane
from localcluster.ports import Ports
from localcluster.process import Daemons, write_if_changed
from localcluster.services import answers
from localcluster.steps import StepRunner

NAME = "kube-dns"
USER = "system:coredns"
RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True)
class NameServer:
    """The DNS server of one control plane."""

    folder: Path
    control: ControlPlane
    address: str = "127.0.0.1"
    """Where the server listens; pods must be able to reach it."""
    upstream: Path = RESOLV_CONF
    """The file with the name servers for names outside the cluster."""
    ephemeral: bool = False

    @property
    def daemons(self) -> Daemons:
        """The server process."""
        return Daemons(self.folder / "servers", self.ephemeral)

    @property
    def port(self) -> int:
        """The port for DNS queries, over UDP and TCP."""
        return self._port("coredns", self.address)

    def start(self, steps: StepRunner) -> None:
        """Start the server and wait until it has read the Services of the cluster."""
        program = toolchain.program("coredns", steps)
        with steps.step("start the DNS server (CoreDNS)") as step:
            self._publish(steps)
            config = write_if_changed(self.folder / "Corefile", self._corefile())
            reads = [config, self.upstream] if self.upstream.exists() else [config]
            self.daemons.start("coredns", [program, "-quiet", "-conf", config], reads=reads)
            ready = f"http://127.0.0.1:{self._port('coredns-ready')}/ready"
            self.daemons.wait("coredns", lambda: answers(ready))
            step.detail = f"{DNS_SERVICE} for pods"

    def stop(self) -> None:
        """Stop the server, if it runs, and delete its folder."""
        self.daemons.stop("coredns")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _corefile(self) -> str:
        """Return the configuration; without an upstream server, only cluster names are resolved.

        Names of the cluster are not cached, so that a new pod resolves at once.
        """
        kubeconfig = self.control.client("coredns", f"/CN={USER}")
        forward = f"forward . {self.upstream}" if names_a_server(self.upstream) else ""
        return f"""\
.:{self.port} {{
    bind {self.address}
    ready 127.0.0.1:{self._port("coredns-ready")}
    errors
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        fallthrough in-addr.arpa ip6.arpa
    }}
    cache 30 {{
        disable success {DOMAIN}
        disable denial {DOMAIN}
    }}
    {forward}
}}
"""

    def _publish(self, steps: StepRunner) -> None:
        """Give the server its RBAC rights, and create the Service by which pods reach it."""
        # A loopback address cannot be behind a Service.
        service = [] if self.address.startswith("127.") else _service(self.address, self.port)
        objects = {"apiVersion": "v1", "kind": "List", "items": [*_rights(), *service]}
        kubectl = [toolchain.server("kubectl", steps), f"--kubeconfig={self.control.kubeconfig}"]
        steps.run([*kubectl, "apply", "-f", "-"], stdin=json.dumps(objects), what="kubectl apply")

    def _port(self, name: str, address: str = "127.0.0.1") -> int:
        running = self.daemons.running("coredns")
        return Ports(self.folder / "ports.json").get(name, address, running=running)


def names_a_server(resolv_conf: Path) -> bool:
    """Return whether the file exists and names a server."""
    if not resolv_conf.exists():
        return False
    return any(line.split()[:1] == ["nameserver"] for line in resolv_conf.read_text().splitlines())


def _rights() -> list[dict[str, Any]]:
    """Return the RBAC objects for reading Services and their addresses."""
    rbac = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": USER},
            "rules": [
                _may_watch("", "services", "namespaces"),
                _may_watch("discovery.k8s.io", "endpointslices"),
            ],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": USER},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": USER},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": USER}],
        },
    ]


def _service(address: str, port: int) -> list[dict[str, Any]]:
    """Return the Service, with this machine as its only endpoint."""
    protocols = (("dns", "UDP"), ("dns-tcp", "TCP"))
    system = {"name": NAME, "namespace": "kube-system"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": system,
            "spec": {
                "clusterIP": DNS_SERVICE,
                "ports": [
                    {"name": name, "protocol": protocol, "port": 53, "targetPort": port}
                    for name, protocol in protocols
                ],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**system, "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}],
            "ports": [
                {"name": name, "protocol": protocol, "port": port} for name, protocol in protocols
            ],
        },
    ]


def _may_watch(group: str, *resources: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": ["list", "watch"]}
