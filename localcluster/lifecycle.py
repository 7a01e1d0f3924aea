"""Start, stop and status of the whole: a cluster, S3 storage and an image registry."""

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from localcluster import folders, toolchain
from localcluster.cluster_kind import ClusterKind, choose_kind, machine_facts
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
"""Free space for a first start: Go's caches, programs, base images, three copies of a layer."""
WARM_GIB = 3
"""Free space for a later start."""
_HELD: set[str] = set()
"""Lock files that this process holds."""


@dataclass(frozen=True)
class DevCluster:
    """A running cluster, its image registry and its S3 storage."""

    kind: ClusterKind
    kubeconfig: Path
    registry: str
    """The prefix of image names: `host:port` or `host/path`."""
    storage_endpoint: str
    access_key: str
    secret_key: str
    host_ip: str
    """The address at which pods reach this machine; empty when it is unknown."""


def up(steps: StepRunner) -> DevCluster:
    """Start what does not run yet; it may be called again at any time, also after a crash."""
    kind = choose_kind(machine_facts())
    with exclusive_command():
        _remember(kind)
        match kind:
            case ClusterKind.CURRENT:
                return _current()
            case ClusterKind.KIND | ClusterKind.K3D:
                return _up_docker(kind, steps)
            case ClusterKind.LOCAL:
                return _up_local(steps)


def image_target(start: Callable[[], DevCluster]) -> DevCluster:
    """Return the cluster whose images are meant: what `start` returns, or one by its registry.

    Of CLUSTER=current only REGISTRY is asked for, and nothing is remembered.
    """
    facts = machine_facts()
    if facts.asked != ClusterKind.CURRENT:
        return start()
    choose_kind(facts, only_images=True)
    return _current_cluster(storage_endpoint="")


def down(steps: StepRunner) -> None:
    """Remove everything that `up` started, whatever state it is in; the cache stays.

    Pods, the bridge and packet filter chains belong to the whole machine: they are removed only
    when the cluster of this state folder made them.
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
    """Remove everything that `up` started, and the cache; Go's own caches stay."""
    cache = folders.cache()
    with exclusive_command():
        down(steps)
        with steps.step(f"remove {cache}"):
            for mount in mounts_below([cache]):
                subprocess.run(["umount", "-l", mount], capture_output=True)
            shutil.rmtree(cache, ignore_errors=True)


def existing_cluster() -> DevCluster:
    """Return the running cluster.

    Raises:
        FatalError: no cluster runs.
    """
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
            raise FatalError("no cluster is running; start one with `make up`")


def status(steps: StepRunner) -> None:
    """Print the kind of cluster, and one line per server."""
    state = folders.state()
    steps.say(f"cluster: {remembered_kind() or 'none; start one with `make up`'}")
    for folder in ("control-plane", "dns", "node", "services"):
        daemons = Daemons(state / folder / "servers")
        for name in daemons.names():
            pid = daemons.pid(name)
            state_of_server = (
                f"runs as pid {pid}" if pid else f"ended: {daemons.last_log_line(name)}"
            )
            steps.say(f"{name}: {state_of_server}")


def kubectl(arguments: list[str], steps: StepRunner) -> list[str]:
    """Return a command line of kubectl for the running cluster."""
    own = shutil.which("kubectl") if remembered_kind() is not ClusterKind.LOCAL else None
    program = own or str(toolchain.server("kubectl", steps))
    return [program, f"--kubeconfig={existing_cluster().kubeconfig}", *arguments]


def delete_unused_images(new: Collection[str], steps: StepRunner) -> None:
    """Delete our images that are neither in `new` nor used by any object in the cluster.

    Call it when the new images run, so that their shared layers are not fetched again. Images in
    Docker, or in a registry that we did not start, stay.
    """
    if remembered_kind() is not ClusterKind.LOCAL:
        return
    with steps.step("delete unused images"):
        network = Network(folders.state() / "network")
        node = Node(folders.state() / "node", _control(network), network)
        node.delete_unused_images({*new, *_images_in_use(steps)})
        _services(network).delete_unused_images(steps)


def _images_in_use(steps: StepRunner) -> set[str]:
    """Return the images of pods, and those that Jobs, Deployments and runs may start again."""
    used: set[str] = set()
    for kinds in ("pods,jobs,deployments", "flashruns"):  # the CRD of FlashRuns may be missing
        argv = kubectl(["get", kinds, "--all-namespaces", "--output=json"], steps)
        listed = subprocess.run(argv, capture_output=True, text=True).stdout
        used |= set(re.findall(r'[^"\s]+@sha256:[0-9a-f]{64}', listed))
    return used


def remembered_kind() -> ClusterKind | None:
    """Return the kind of cluster that `up` started last, or None."""
    file = folders.state() / "choice"
    return ClusterKind(file.read_text()) if file.exists() else None


@contextmanager
def exclusive_command() -> Iterator[None]:
    """Hold the lock of this cluster; may be nested.

    Raises:
        FatalError: another process holds it.
    """
    lock = folders.state().parent / "lock"
    if str(lock) in _HELD:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        _lock(file)
        _HELD.add(str(lock))
        try:
            yield
        finally:
            _HELD.discard(str(lock))


def _lock(file: TextIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise FatalError(
            f"another command (pid {file.read() or 'unknown'}) is changing the local cluster; "
            "wait until it is done, or stop it, and run this command again"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()


def _remember(kind: ClusterKind) -> None:
    before = remembered_kind()
    if before not in (None, kind):
        raise FatalError(
            f"a cluster of the kind {before} is running, but {kind} was requested; run `make down` "
            f"first, or set CLUSTER={before}"
        )
    folders.state().mkdir(parents=True, exist_ok=True)
    (folders.state() / "choice").write_text(kind)


def _current() -> DevCluster:
    endpoint = os.environ.get("S3_ENDPOINT", "")
    if not speaks_http(endpoint):
        raise FatalError(
            f"the S3 endpoint {endpoint} does not answer; check S3_ENDPOINT, and that this "
            "machine can reach it"
        )
    return _current_cluster(endpoint)


def _current_cluster(storage_endpoint: str) -> DevCluster:
    default = Path.home() / ".kube" / "config"
    return DevCluster(
        kind=ClusterKind.CURRENT,
        kubeconfig=Path(os.environ.get("KUBECONFIG") or default),
        registry=os.environ.get("REGISTRY", ""),
        storage_endpoint=storage_endpoint,
        access_key=os.environ.get("S3_ACCESS_KEY", ""),
        secret_key=os.environ.get("S3_SECRET_KEY", ""),
        host_ip="",
    )


def speaks_http(endpoint: str) -> bool:
    """Return whether anything at `endpoint` speaks HTTP; an S3 server answers 403 to a stranger."""
    argv = ["curl", "-sS", "-m", "10", "-o", "/dev/null", endpoint]
    if shutil.which("curl"):
        return subprocess.run(argv, capture_output=True).returncode == 0
    return answers(endpoint)


def _up_docker(tool: ClusterKind, steps: StepRunner) -> DevCluster:
    kubeconfig = folders.state() / "kubeconfig"
    cluster = DockerCluster(tool, kubeconfig)
    # The cluster needs the port of the registry, and storage needs the gateway of the cluster.
    registry = _docker_services("127.0.0.1")
    registry.start_registry(steps)
    cluster.start(registry.registry_port, steps)
    services = _docker_services(cluster.gateway())
    services.start_storage(steps)
    patch = json.dumps({"status": {s: {GPU: str(GPUS)} for s in ("capacity", "allocatable")}})
    for node in steps.run(kubectl(["get", "nodes", "-oname"], steps)).split():
        steps.run(kubectl(["patch", node, "--subresource=status", "-p", patch], steps))
    return _local(tool, kubeconfig, services, cluster.gateway())


def _up_local(steps: StepRunner) -> DevCluster:
    _check_owner()
    _check_free_space()
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
    with steps.step("remove the network bridge and the packet filter chains"):
        network.remove()


def owner_folder() -> Path | None:
    """Return the state folder of the local cluster on this machine, or None."""
    file = folders.sockets() / OWNER
    return Path(file.read_text()) if file.exists() else None


def _check_owner() -> None:
    """Raise FatalError when this machine belongs to another state folder or another cluster."""
    folder = owner_folder()
    if folder not in (None, folders.state()) and folder.exists():
        raise FatalError(
            f"this machine already runs the local cluster of {folder}; use that cluster, or remove "
            f"it with `make down XDG_STATE_HOME={folder.parent.parent}`"
        )
    if other := foreign_kubelet(folders.state()):
        raise FatalError(
            f"this machine is a node of another cluster ({other}), whose pods must not be removed; "
            "stop that cluster first"
        )


def _check_free_space() -> None:
    cache = folders.cache()
    cache.mkdir(parents=True, exist_ok=True)
    needed = WARM_GIB if (cache / "buildah").exists() else COLD_GIB
    free = shutil.disk_usage(cache).free / GIB
    if free < needed:
        raise FatalError(
            f"the disk of {cache} has {free:.1f} GiB free, but {needed} GiB are needed; free some "
            "space, or set XDG_CACHE_HOME and XDG_STATE_HOME to folders on another disk"
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
