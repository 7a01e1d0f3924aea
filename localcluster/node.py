"""A node on this machine: containerd, kubelet and kube-proxy, run as root.

Its files, sockets and mounts are in its own folders, so that another containerd on the machine is
not touched and `stop` knows what to remove. The node advertises GPUs that it does not have: it is
for testing scheduling, not devices.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localcluster import folders, toolchain
from localcluster.controlplane import DNS_SERVICE, DOMAIN, NODE, ControlPlane
from localcluster.network import BRIDGE, Network
from localcluster.ports import Ports
from localcluster.process import Daemons, wait_until, write_if_changed
from localcluster.services import answers
from localcluster.steps import FatalError, StepRunner

PACKAGES = ("containerd", "runc", "containernetworking-plugins", "iptables", "iproute2", "kmod")
EVICTION = {
    "memory.available": "50Mi",
    "nodefs.available": "0%",
    "nodefs.inodesFree": "0%",
    "imagefs.available": "0%",
    "imagefs.inodesFree": "0%",
}
GPUS = 8
GPU = "nvidia.com/gpu"
PAUSE = "localhost/pause:1"
STRAY_FOLDERS = (
    "/var/log/containers",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/run/containerd",
)
CGROUPS = Path("/sys/fs/cgroup")
OWNER = "owner"
"""The file beside the sockets with the state folder that the cluster of this machine belongs to."""
PODS = "kubepods"
"""The cgroup under which kubelet puts all processes of pods."""


@dataclass(frozen=True)
class Node:
    """This machine as the only node of a control plane."""

    folder: Path
    control: ControlPlane
    network: Network

    @property
    def daemons(self) -> Daemons:
        """containerd, kubelet and kube-proxy."""
        return Daemons(self.folder / "servers")

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return folders.sockets() / "containerd.sock"

    @property
    def images(self) -> Path:
        """Where containerd stores layers: in the cache, because unpacking them takes long."""
        return folders.cache() / "containerd"

    def start(self, steps: StepRunner) -> None:
        """Start what does not run yet, and wait until the node is Ready and advertises GPUs."""
        with steps.step("start containerd"):
            self._start_containerd()
            self._import_pause(steps)
        with steps.step("start the node") as step:
            self._start_kubelet(steps)
            self._start_proxy(steps)
            self._wait_ready(steps)
            self._advertise_gpus(steps)
            step.detail = f"{NODE} is Ready and advertises {GPUS} {GPU} (it has no real GPU)"

    def stop(self) -> None:
        """Stop the node and all processes of its pods, and remove its mounts and files."""
        for name in ("kubelet", "kube-proxy"):
            self.daemons.stop(name)
        self._delete_containers()
        _kill_pods()
        _kill_shims(self.socket)
        self.daemons.stop("containerd")
        for mount in mounts_below([self.folder, folders.sockets()]):
            subprocess.run(["umount", "-l", mount], capture_output=True)
        _remove_cgroups()
        _remove_strays(self.folder)
        shutil.rmtree(folders.sockets(), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _port(self, name: str, address: str = "127.0.0.1") -> int:
        running = self.daemons.running(name.removesuffix("-health"))
        return Ports(self.folder / "ports.json").get(name, address, running=running)

    # containerd

    def _start_containerd(self) -> None:
        for folder in (self.folder, folders.sockets(), self.images):
            folder.mkdir(parents=True, exist_ok=True)
        config = write_if_changed(self.folder / "containerd.toml", self._containerd_config())
        if not self.daemons.running("containerd"):
            self.socket.unlink(missing_ok=True)
        self.daemons.start("containerd", ["containerd", "--config", config], reads=[config])
        self.daemons.wait("containerd", lambda: self._ctr("version").returncode == 0)

    def _containerd_config(self) -> str:
        plugin = 'plugins."io.containerd.grpc.v1.cri"'
        tables: dict[str, dict[str, str | bool]] = {
            "grpc": {"address": str(self.socket)},
            'plugins."io.containerd.internal.v1.opt"': {"path": str(self.folder / "opt")},
            plugin: {
                "sandbox_image": PAUSE,
                # Lowering a score needs CAP_SYS_RESOURCE, which containers often lack.
                "restrict_oom_score_adj": True,
                "netns_mounts_under_state_dir": True,
            },
            f"{plugin}.containerd": {
                "snapshotter": _snapshotter(self.images),
                "discard_unpacked_layers": True,
            },
            f"{plugin}.containerd.runtimes.runc": {"runtime_type": "io.containerd.runc.v2"},
            f"{plugin}.containerd.runtimes.runc.options": {
                "SystemdCgroup": False,
                "Root": str(folders.sockets() / "runc"),
            },
            f"{plugin}.cni": {"bin_dir": "/usr/lib/cni", "conf_dir": str(self.network.cni)},
        }
        head = {"root": str(self.images), "state": str(folders.sockets() / "containerd")}
        return (
            "version = 2\n"
            + _toml(head)
            + "".join(f"[{name}]\n{_toml(values)}" for name, values in tables.items())
        )

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        return subprocess.run(argv, capture_output=True, text=True)

    def _import_pause(self, steps: StepRunner) -> None:
        if PAUSE in self._ctr("images", "list", "-q").stdout.split():
            return
        archive = self.folder / "pause.tar"
        archive.write_bytes(pause_archive(toolchain.program("pause", steps).read_bytes()))
        steps.run(["ctr", "-a", self.socket, "-n", "k8s.io", "images", "import", archive])
        self._ctr("images", "label", PAUSE, "io.cri-containerd.pinned=pinned")

    def _delete_containers(self) -> None:
        """Delete every container in containerd, so that the next cluster starts without them."""
        if not self.daemons.running("containerd"):
            return
        for task in self._ctr("tasks", "list", "-q").stdout.split():
            self._ctr("tasks", "delete", "--force", task)
        for container in self._ctr("containers", "list", "-q").stdout.split():
            self._ctr("containers", "delete", container)

    def delete_unused_images(self, used: Collection[str]) -> None:
        """Delete our images and their layers from containerd, except those in `used`."""
        lines = self._ctr("images", "list").stdout.splitlines()[1:]
        digests = {name: digest for name, _, digest, *_ in map(str.split, lines)}
        old = unused_images(digests, used)
        if old:
            self._ctr("images", "remove", *old)

    # kubelet and kube-proxy

    def _start_kubelet(self, steps: StepRunner) -> None:
        serving = self.control.authority.leaf(
            "node",
            f"/O=system:nodes/CN=system:node:{NODE}",
            [f"DNS:{NODE}", f"IP:{self.network.address}"],
        )
        root = self.folder / "kubelet"
        root.mkdir(exist_ok=True)
        kubeconfig = self.control.authority.kubeconfig(
            self.folder / "kubelet.kubeconfig", self.control.server, serving
        )
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.network.address,
            "port": self._port("kubelet", self.network.address),
            "healthzPort": self._port("kubelet-health"),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.control.authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": DOMAIN,
            "resolvConf": _resolv_conf(),
            "podLogsDir": str(self.folder / "pod-logs"),
            "volumePluginDir": str(self.folder / "volume-plugins"),
            "makeIPTablesUtilChains": False,
            # A nearly full disk must not cost images and pods on a developer's machine.
            "evictionHard": EVICTION,
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
            "maxPods": 200,
        }
        file = write_if_changed(self.folder / "kubelet.yaml", yaml.safe_dump(config))
        self.daemons.start(
            "kubelet",
            [
                toolchain.server("kubelet", steps),
                f"--config={file}",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={NODE}",
                f"--node-ip={self.network.address}",
                f"--root-dir={root}",
                f"--cert-dir={self.folder / 'kubelet-certificates'}",
            ],
            reads=[file],
        )

    def _start_proxy(self, steps: StepRunner) -> None:
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": str(self.network.subnet),
            "clientConnection": {
                "kubeconfig": str(self.control.client("kube-proxy", "/CN=system:kube-proxy"))
            },
            "hostnameOverride": NODE,
            "healthzBindAddress": f"127.0.0.1:{self._port('kube-proxy-health')}",
            "metricsBindAddress": f"127.0.0.1:{self._port('kube-proxy')}",
            "conntrack": {"maxPerCore": 0},
            "oomScoreAdj": 0,
        }
        file = write_if_changed(self.folder / "kube-proxy.yaml", yaml.safe_dump(config))
        program = toolchain.server("kube-proxy", steps)
        self.daemons.start("kube-proxy", [program, f"--config={file}"], reads=[file])

    def _wait_ready(self, steps: StepRunner) -> None:
        health = f"http://127.0.0.1:{self._port('kubelet-health')}/healthz"

        def ready() -> bool:
            if self.kubelet_started_too_early():
                self._start_kubelet(steps)
            if not answers(health):  # the node object may be older than a reboot
                return False
            conditions = self._node(steps).get("status", {}).get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        self.daemons.wait("kubelet", ready, 120)
        if not self.daemons.running("kube-proxy"):
            raise FatalError(f"kube-proxy ended: {self.daemons.last_log_line('kube-proxy')}")

    def kubelet_started_too_early(self) -> bool:
        """Return whether kubelet ended because containerd was not ready for pods yet.

        containerd answers before it is ready, and kubelet does not try again.
        """
        last_line = self.daemons.last_log_line("kubelet")
        return not self.daemons.running("kubelet") and "server is not initialized yet" in last_line

    def _node(self, steps: StepRunner) -> dict[str, Any]:
        argv = [str(toolchain.server("kubectl", steps)), f"--kubeconfig={self.control.kubeconfig}"]
        got = subprocess.run([*argv, "get", "node", NODE, "-ojson"], capture_output=True, text=True)
        loaded: dict[str, Any] = json.loads(got.stdout) if got.returncode == 0 else {}
        return loaded

    def _advertise_gpus(self, steps: StepRunner) -> None:
        gpus = {GPU: str(GPUS)}
        patch = json.dumps({"status": {"capacity": gpus, "allocatable": gpus}})
        kubectl = [toolchain.server("kubectl", steps), f"--kubeconfig={self.control.kubeconfig}"]
        steps.run([*kubectl, "patch", "node", NODE, "--subresource=status", "-p", patch])


def unused_images(digests: Mapping[str, str], used: Collection[str]) -> list[str]:
    """Return the names of our images in containerd that are not in `used`.

    `digests` maps every name in containerd to a digest. Kubelet also names each image by its id;
    that name is returned when no other name of the digest stays.
    """
    ids = {name for name in digests if name.startswith("sha256:")}
    old = [name for name in digests if "/flashrun/" in name and name not in used]
    kept = {digest for name, digest in digests.items() if name not in {*ids, *old}}
    gone = {digests[name] for name in old} - kept
    return [*old, *(name for name in ids if digests[name] in gone)]


def pause_archive(program: bytes) -> bytes:
    """Return an OCI archive of the pause image: one layer with one file."""
    layer = _tar({"pause": program})
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    config_blob = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", config_blob),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    }
    manifest_blob = json.dumps(manifest).encode()
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest_blob) | {
        "annotations": {"io.containerd.image.name": PAUSE}
    }
    blobs = {
        f"blobs/{_digest(blob).replace(':', '/')}": blob
        for blob in (layer, config_blob, manifest_blob)
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return _tar({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs})


def mounts_below(roots: list[Path]) -> list[str]:
    """Return the mount points inside these folders, the innermost first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [p for p in points if any(p.startswith(f"{root}/") for root in roots)]
    return sorted(inside, key=len, reverse=True)


def foreign_kubelet(own: Path) -> str:
    """Return the command line of a kubelet whose files are not in `own`, or empty."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # the process ended meanwhile
        name = Path(line.split(" ")[0]).name
        if name in ("kubelet", "k3s", "rke2", "k0s") and str(own) not in line:
            return line[:100]
    return ""


def _kill_pods() -> None:
    """Kill all processes in the cgroups of pods, also those that containerd does not know."""

    def gone() -> bool:
        files = [file for pods in _pod_cgroups() for file in pods.glob("**/cgroup.procs")]
        left = {pid for file in files for pid in _processes(file)}
        for pid in left:
            _kill(pid)
        return not left

    wait_until(gone, 10)


def _processes(file: Path) -> list[int]:
    try:
        return [int(pid) for pid in file.read_text().split()]
    except OSError:
        return []  # the cgroup was removed meanwhile


def _kill_shims(socket: Path) -> None:
    """Kill the shims of our containerd; they have its socket in their arguments."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"containerd-shim-runc-v2" in words[0] and str(socket).encode() in words:
            _kill(int(file.parent.name))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _pod_cgroups() -> list[Path]:
    """Return the cgroups of pods: one in version 2, one per controller in version 1."""
    return [p for p in (CGROUPS / PODS, *CGROUPS.glob(f"*/{PODS}")) if p.is_dir()]


def _remove_cgroups() -> None:
    for root in _pod_cgroups():
        folders_inside = [p for p in root.glob("**/") if p.is_dir()]
        for folder in sorted(folders_inside, key=lambda p: len(p.parts), reverse=True):
            wait_until(lambda folder=folder: _rmdir(folder), 2)  # type: ignore[misc]


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # a killed process has not ended yet
    return True


def _remove_strays(folder: Path) -> None:
    """Remove our files from the places that no setting of the servers changes."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{folder}/"):
            link.unlink()
    results = Path("/var/lib/cni/results")
    for result in [*results.glob(f"{BRIDGE}-*"), *results.glob("cni-loopback-*")]:
        result.unlink()
    if not Path("/run/containerd/containerd.sock").exists():  # no other containerd runs here
        shutil.rmtree("/run/containerd/s", ignore_errors=True)
    for socket in Path("/var/lib/kubelet/device-plugins").glob("kubelet.sock"):
        socket.unlink()
    for stray in STRAY_FOLDERS:
        with contextlib.suppress(OSError):  # it does not exist, or is not empty
            Path(stray).rmdir()


def _snapshotter(folder: Path) -> str:
    """Return overlayfs, or native on a disk that is itself an overlay (in a container)."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True)
    return "native" if re.search("overlay", kind.stdout) else "overlayfs"


def _resolv_conf() -> str:
    """Return the file with name servers that pods can reach; systemd-resolved has its own."""
    resolved = Path("/run/systemd/resolve/resolv.conf")
    return str(resolved if resolved.exists() else "/etc/resolv.conf")


def _toml(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
