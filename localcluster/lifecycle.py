"""Up, down and status of the whole: a cluster, S3 storage and an image registry."""

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from localcluster import folders, toolchain
from localcluster.cluster_kind import ClusterKind, choose, machine_facts
from localcluster.controlplane import ControlPlane
from localcluster.dns import NameServer
from localcluster.docker import DockerCluster
from localcluster.network import Network
from localcluster.node import (
    GPU,
    GPUS,
    OWNER,
    PACKAGES,
    Node,
    foreign_kubelet,
    mounts_below,
)
from localcluster.process import Daemons, write_if_changed
from localcluster.services import ACCESS_KEY, Services, answers
from localcluster.steps import FatalError, StepRunner

GIB = 1024**3
COLD_GIB = 14
"""Go's module and build cache, the programs, two base images, and three copies of each layer."""
WARM_GIB = 3
_HELD: set[str] = set()
"""The lock files that this process holds."""


@dataclass(frozen=True)
class DevCluster:
    """A running cluster and what FlashRun needs beside it."""

    kind: ClusterKind
    kubeconfig: Path
    registry: str
    """Where images are pushed to and pulled from: `host:port` or `host/path`."""
    storage_endpoint: str
    access_key: str
    secret_key: str
    host_ip: str
    """The address of this machine that pods can reach; empty when it is not known."""


def up(steps: StepRunner) -> DevCluster:
    """Start whatever does not run yet; running it again is harmless, also after a crash."""
    choice = choose(machine_facts())
    with exclusive_command():
        _remember(choice)
        match choice:
            case ClusterKind.CURRENT:
                return _current()
            case ClusterKind.KIND | ClusterKind.K3D:
                return _up_docker(choice, steps)
            case ClusterKind.LOCAL:
                return _up_local(steps)


def down(steps: StepRunner) -> None:
    """Remove everything that `up` started, whatever state it is in; the cache stays.

    What belongs to the whole machine (pods' processes, the bridge, packet filter chains) is touched
    only when this very state folder brought it up.
    """
    state = folders.state()
    with exclusive_command():
        local = remembered_kind() is ClusterKind.LOCAL or owner_folder() == state
        if local:
            _check_owner()
        for tool in (ClusterKind.KIND, ClusterKind.K3D):
            if remembered_kind() is tool:
                DockerCluster(tool, state / "kubeconfig").stop(steps)
        with steps.step("stop the S3 server and the registry"):
            _services(Network(state / "network")).stop()
        if local:
            _down_local(steps)
        shutil.rmtree(state, ignore_errors=True)


def clean(steps: StepRunner) -> None:
    """Remove everything that `up` started, and the cache; Go's own caches are not ours."""
    cache = folders.cache()
    with exclusive_command():
        down(steps)
        with steps.step(f"remove {cache}"):
            for mount in mounts_below([cache]):
                subprocess.run(["umount", "-l", mount], capture_output=True)
            shutil.rmtree(cache, ignore_errors=True)


def existing_cluster() -> DevCluster:
    """The cluster that is up; Stop when there is none."""
    state = folders.state()
    kubeconfig = state / "kubeconfig"
    match remembered_kind():
        case ClusterKind.CURRENT:
            return _current()
        case ClusterKind.LOCAL if (state / "control-plane" / "kubeconfig").exists():
            network = Network(state / "network")
            control = _control(network)
            return _local(
                ClusterKind.LOCAL, control.kubeconfig, _services(network), network.address
            )
        case (ClusterKind.KIND | ClusterKind.K3D) as tool if kubeconfig.exists():
            gateway = DockerCluster(tool, kubeconfig).gateway()
            return _local(tool, kubeconfig, _docker_services(gateway), gateway)
        case _:
            raise FatalError("no cluster is up; start one with `make up`")


def status(steps: StepRunner) -> None:
    """Say what runs, one line a server."""
    state = folders.state()
    steps.say(f"cluster: {remembered_kind() or 'none; start one with `make up`'}")
    for folder in ("control-plane", "dns", "node", "services"):
        daemons = Daemons(state / folder / "servers")
        for name in daemons.names():
            pid = daemons.pid(name)
            life = f"runs as pid {pid}" if pid else f"ended: {daemons.last_log_line(name)}"
            steps.say(f"{name}: {life}")


def kubectl(arguments: list[str], steps: StepRunner) -> list[str]:
    """The command line of kubectl for the cluster that is up."""
    own = shutil.which("kubectl") if remembered_kind() is not ClusterKind.LOCAL else None
    program = own or str(toolchain.server("kubectl", steps))
    return [program, f"--kubeconfig={existing_cluster().kubeconfig}", *arguments]


def delete_unused_images(new: Collection[str], steps: StepRunner) -> None:
    """Drop images of ours that are neither new nor named by anything in the cluster.

    Call it once the new ones run: what they share with the older ones is not fetched again then.
    What somebody else's registry and Docker keep is not ours to drop.
    """
    if remembered_kind() is not ClusterKind.LOCAL:
        return
    with steps.step("forget older images"):
        network = Network(folders.state() / "network")
        node = Node(folders.state() / "node", _control(network), network)
        node.delete_unused_images({*new, *_images_in_use(steps)})
        _services(network).delete_unused_images(steps)


def _images_in_use(steps: StepRunner) -> set[str]:
    """What pods run, and what Jobs, Deployments and runs may start again."""
    named: set[str] = set()
    for kinds in ("pods,jobs,deployments", "flashruns"):  # the latter exist once they are installed
        argv = kubectl(["get", kinds, "--all-namespaces", "--output=json"], steps)
        listed = subprocess.run(argv, capture_output=True, text=True).stdout
        named |= set(re.findall(r'[^"\s]+@sha256:[0-9a-f]{64}', listed))
    return named


def remembered_kind() -> ClusterKind | None:
    """The kind of cluster that `up` started last, if any."""
    file = folders.state() / "choice"
    return ClusterKind(file.read_text()) if file.exists() else None


@contextmanager
def exclusive_command() -> Iterator[None]:
    """Refuse to run while another command changes the same cluster; may be nested."""
    lock = folders.state().parent / "lock"
    if str(lock) in _HELD:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        _take(file)
        _HELD.add(str(lock))
        try:
            yield
        finally:
            _HELD.discard(str(lock))


def _take(file: TextIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise FatalError(
            f"another command (pid {file.read() or 'unknown'}) is changing the local cluster; "
            "wait until it is done, or stop it, and run again"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()


def _remember(choice: ClusterKind) -> None:
    before = remembered_kind()
    if before not in (None, choice):
        raise FatalError(
            f"a cluster of the kind {before} is up and {choice} was asked for; run `make down` "
            f"first, or say CLUSTER={before}"
        )
    folders.state().mkdir(parents=True, exist_ok=True)
    (folders.state() / "choice").write_text(choice)


def _current() -> DevCluster:
    endpoint = os.environ.get("S3_ENDPOINT", "")
    if not speaks_http(endpoint):
        raise FatalError(
            f"the S3 endpoint {endpoint} does not answer; check S3_ENDPOINT, and that this "
            "machine can reach it"
        )
    default = Path.home() / ".kube" / "config"
    return DevCluster(
        kind=ClusterKind.CURRENT,
        kubeconfig=Path(os.environ.get("KUBECONFIG") or default),
        registry=os.environ.get("REGISTRY", ""),
        storage_endpoint=endpoint,
        access_key=os.environ.get("S3_ACCESS_KEY", ""),
        secret_key=os.environ.get("S3_SECRET_KEY", ""),
        host_ip="",
    )


def speaks_http(endpoint: str) -> bool:
    """Whether anything speaks HTTP there; an S3 server denies a stranger, which is an answer."""
    argv = ["curl", "-sS", "-m", "10", "-o", "/dev/null", endpoint]
    if shutil.which("curl"):
        return subprocess.run(argv, capture_output=True).returncode == 0
    return answers(endpoint)


def _up_docker(tool: ClusterKind, steps: StepRunner) -> DevCluster:
    kubeconfig = folders.state() / "kubeconfig"
    cluster = DockerCluster(tool, kubeconfig)
    registry_first = _docker_services("127.0.0.1")
    registry_first.start_registry(steps)
    cluster.start(registry_first.registry_port, steps)
    services = _docker_services(cluster.gateway())
    services.start_storage(steps)
    patch = json.dumps({"status": {s: {GPU: str(GPUS)} for s in ("capacity", "allocatable")}})
    for node in steps.run(kubectl(["get", "nodes", "-oname"], steps)).split():
        steps.run(kubectl(["patch", node, "--subresource=status", "-p", patch], steps))
    return _local(tool, kubeconfig, services, cluster.gateway())


def _up_local(steps: StepRunner) -> DevCluster:
    _check_owner()
    _check_room()
    toolchain.debian([*PACKAGES, "openssl"], steps)
    for name in ("pause", "registry", "minio", "kubernetes", "coredns"):
        toolchain.program(name, steps)
    write_if_changed(folders.sockets() / OWNER, str(folders.state()))
    network = Network(folders.state() / "network")
    network.start()
    control, services = _control(network), _services(network)
    control.start(steps)
    _names(control, network).start(steps)
    Node(folders.state() / "node", control, network).start(steps)
    services.start_storage(steps)
    services.start_registry(steps)
    return _local(ClusterKind.LOCAL, control.kubeconfig, services, network.address)


def _down_local(steps: StepRunner) -> None:
    network = Network(folders.state() / "network")
    control = _control(network)
    with steps.step("stop the node, its pods and their mounts"):
        Node(folders.state() / "node", control, network).stop()
    with steps.step("stop the control plane"):
        _names(control, network).stop()
        control.remove()
    with steps.step("remove the network bridge and the packet filter's chains"):
        network.remove()


def owner_folder() -> Path | None:
    """The state folder of the cluster that this machine runs, or ran until it crashed."""
    file = folders.sockets() / OWNER
    return Path(file.read_text()) if file.exists() else None


def _check_owner() -> None:
    """Stop when the machine is somebody else's: another state folder's, or another cluster's."""
    folder = owner_folder()
    if folder not in (None, folders.state()) and folder.exists():
        raise FatalError(
            f"this machine already runs the local cluster of {folder}; use that one, or remove it "
            f"with `make down XDG_STATE_HOME={folder.parent.parent}`"
        )
    if other := foreign_kubelet(folders.state()):
        raise FatalError(
            f"this machine is a node of another cluster ({other}), whose pods nothing here may "
            "touch; stop that cluster first"
        )


def _check_room() -> None:
    cache = folders.cache()
    cache.mkdir(parents=True, exist_ok=True)
    wanted = WARM_GIB if (cache / "buildah").exists() else COLD_GIB
    free = shutil.disk_usage(cache).free / GIB
    if free < wanted:
        raise FatalError(
            f"the disk that holds {cache} has {free:.1f} GiB left and this needs {wanted}; free "
            "some, or set XDG_CACHE_HOME and XDG_STATE_HOME to folders on another disk"
        )


def _control(network: Network) -> ControlPlane:
    return ControlPlane(folders.state() / "control-plane", address=network.address)


def _names(control: ControlPlane, network: Network) -> NameServer:
    return NameServer(folders.state() / "dns", control, address=network.address)


def _services(network: Network) -> Services:
    return Services(folders.state() / "services", address=network.address)


def _docker_services(gateway: str) -> Services:
    return Services(folders.state() / "services", address=gateway, exposed=True)


def _local(kind: ClusterKind, kubeconfig: Path, services: Services, host_ip: str) -> DevCluster:
    return DevCluster(
        kind=kind,
        kubeconfig=kubeconfig,
        registry=services.registry,
        storage_endpoint=services.endpoint,
        access_key=ACCESS_KEY,
        secret_key=services.secret_key,
        host_ip=host_ip,
    )
