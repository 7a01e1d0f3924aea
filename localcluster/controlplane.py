"""etcd, the API server and its controllers: a cluster without nodes.

It needs neither root nor fixed ports, so several can run side by side, each in its own folder. The
API tests start theirs like this:

    kubeconfig = ControlPlane(tmp_path, ephemeral=True).start()
"""

import shutil
import ssl
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from localcluster import toolchain
from localcluster.pki import Authority, Leaf
from localcluster.ports import Ports
from localcluster.process import Daemons
from localcluster.steps import StepRunner

SERVICES = "10.250.0.0/20"
FIRST_SERVICE = "10.250.0.1"
DNS_SERVICE = "10.250.0.10"
DOMAIN = "cluster.local"
NODE = "flashrun-local"
SERVERS = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
"""In the order in which they are stopped."""

# With the defaults (20 requests per second), tests would wait for the controllers.
CLIENT_LIMITS = ["--kube-api-qps=500", "--kube-api-burst=1000"]


@dataclass(frozen=True)
class ControlPlane:
    """The servers of one cluster; their files are in `folder`."""

    folder: Path
    address: str = "127.0.0.1"
    """Where the API server listens; pods cannot reach a loopback address."""
    scheduler: bool = True
    token_webhook: Path | None = None
    """A kubeconfig for the server that knows bearer tokens; None: there are only certificates."""
    ephemeral: bool = False
    """For tests: servers end with the process that started them; etcd does not call fsync."""

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def authority(self) -> Authority:
        """The certificate authority of this cluster."""
        return Authority(self.folder / "pki")

    @property
    def daemons(self) -> Daemons:
        """The running servers, with their pids and logs."""
        return Daemons(self.folder / "servers", self.ephemeral)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.address}:{self._port('kube-apiserver')}"

    def start(self, steps: StepRunner | None = None) -> Path:
        """Start what does not run yet, wait until it answers, and return the kubeconfig."""
        if steps is None:
            with closing(StepRunner.silent(self.folder)) as steps:
                return self.start(steps)
        toolchain.program("kubernetes", steps)
        title = f"start the control plane of Kubernetes {toolchain.KUBERNETES}"
        with steps.step(title) as step:
            self._certificates()
            self._start_api(steps)
            # The controllers exit when the API server has not created its RBAC rules yet.
            self._start_controllers(steps)
            step.detail = self.server
        return self.kubeconfig

    def stop(self) -> None:
        """Stop every server that still runs."""
        for name in SERVERS:
            self.daemons.stop(name)

    def remove(self) -> None:
        """Stop every server and delete the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, name: str, subject: str) -> Path:
        """Write a kubeconfig for a server that authenticates as `subject`; return its path."""
        leaf = self.authority.leaf(name, subject, [f"DNS:{name}"])
        return self.authority.kubeconfig(
            self.authority.folder / f"{name}.kubeconfig", self.server, leaf
        )

    def _port(self, name: str) -> int:
        address = self.address if name == "kube-apiserver" else "127.0.0.1"
        server = name.removesuffix("-peer")
        running = self.daemons.running(server)
        return Ports(self.folder / "ports.json").get(name, address, running=running)

    def _certificates(self) -> None:
        self.authority.create()
        self.authority.signing_pair("service-accounts")
        admin = self.authority.leaf("admin", "/O=system:masters/CN=admin", ["DNS:admin"])
        self.authority.kubeconfig(self.kubeconfig, self.server, admin)

    def _serving(self) -> Leaf:
        service = ["kubernetes", "default", "svc", DOMAIN]
        names = ["localhost", *(".".join(service[:n]) for n in (1, 2, 3, 4))]
        addresses = {"127.0.0.1", self.address, FIRST_SERVICE}
        return self.authority.leaf(
            "kube-apiserver",
            "/CN=kube-apiserver",
            [f"DNS:{name}" for name in names] + [f"IP:{a}" for a in sorted(addresses)],
        )

    def _start_api(self, steps: StepRunner) -> None:
        client = f"http://127.0.0.1:{self._port('etcd')}"
        peer = f"http://127.0.0.1:{self._port('etcd-peer')}"
        etcd = [
            "--name=default",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
            *(["--unsafe-no-fsync"] if self.ephemeral else []),
        ]
        self._start("etcd", etcd, steps)
        self._start("kube-apiserver", self._api_flags(client), steps)
        self.daemons.wait("kube-apiserver", lambda: self._healthy("kube-apiserver", "readyz"), 120)

    def _api_flags(self, etcd: str) -> list[str]:
        authority, serving = self.authority, self._serving()
        kubelet = authority.leaf(
            "kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", ["DNS:client"]
        )
        front = authority.leaf("front-proxy", "/CN=front-proxy-client", ["DNS:front-proxy"])
        tokens = authority.signing_pair("service-accounts")
        # A loopback address cannot be an endpoint of the Service `kubernetes`.
        reachable = not self.address.startswith("127.")
        return [
            f"--bind-address={self.address}",
            f"--secure-port={self._port('kube-apiserver')}",
            f"--advertise-address={self.address}",
            f"--endpoint-reconciler-type={'lease' if reachable else 'none'}",
            f"--etcd-servers={etcd}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={authority.certificate}",
            f"--kubelet-client-certificate={kubelet.certificate}",
            f"--kubelet-client-key={kubelet.key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={authority.certificate}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={front.certificate}",
            f"--proxy-client-key-file={front.key}",
            "--enable-aggregator-routing=true",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-key-file={tokens.certificate}",
            f"--service-account-signing-key-file={tokens.key}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--profiling=false",
            *self._webhook_flags(),
        ]

    def _webhook_flags(self) -> list[str]:
        if self.token_webhook is None:
            return []
        return [
            f"--authentication-token-webhook-config-file={self.token_webhook}",
            "--authentication-token-webhook-version=v1",
            # By default an answer holds for two minutes, for longer than tokens in tests.
            "--authentication-token-webhook-cache-ttl=1s",
        ]

    def _start_controllers(self, steps: StepRunner) -> None:
        manager = [
            *self._controller_flags("kube-controller-manager"),
            f"--service-account-private-key-file={self.authority.folder / 'service-accounts.key'}",
            f"--root-ca-file={self.authority.certificate}",
            f"--cluster-signing-cert-file={self.authority.certificate}",
            f"--cluster-signing-key-file={self.authority.key}",
            "--use-service-account-credentials=true",
            "--concurrent-job-syncs=20",
        ]
        self._start("kube-controller-manager", manager, steps)
        names = ["kube-controller-manager"]
        if self.scheduler:
            names.append("kube-scheduler")
            self._start("kube-scheduler", self._controller_flags("kube-scheduler"), steps)
        for name in names:
            self.daemons.wait(name, lambda name=name: self._healthy(name, "healthz"))  # type: ignore[misc]

    def _controller_flags(self, name: str) -> list[str]:
        kubeconfig = self.client(name, f"/CN=system:{name}")
        return [
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port(name)}",
            f"--cert-dir={self.folder / 'servers' / name}",
            "--leader-elect=false",
            "--profiling=false",
            *CLIENT_LIMITS,
        ]

    def _start(self, name: str, flags: list[str], steps: StepRunner) -> None:
        self.daemons.start(name, [toolchain.server(name, steps), *flags])

    def _healthy(self, name: str, path: str) -> bool:
        """Return whether a server reports that it is healthy.

        Only the certificate of the API server is signed by our authority.
        """
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(
            self.authority.folder / "admin.crt", self.authority.folder / "admin.key"
        )
        address = self.address
        if name != "kube-apiserver":
            address = "127.0.0.1"
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            url = f"https://{address}:{self._port(name)}/{path}"
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                return bool(answer.read() == b"ok")
        except (OSError, urllib.error.URLError):
            return False
