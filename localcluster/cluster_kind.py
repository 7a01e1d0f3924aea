"""Which kind of cluster this machine gets: facts in, a kind or an error out.

The current cluster of a kubeconfig is used only on request. With Docker, kind and k3d are the
fastest to start; the local cluster needs only Debian, root and Go.
"""

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import yaml

from localcluster import folders, node
from localcluster.steps import FatalError


class ClusterKind(StrEnum):
    """The kinds of clusters, and the values of the variable CLUSTER."""

    CURRENT = "current"
    KIND = "kind"
    K3D = "k3d"
    LOCAL = "local"


@dataclass(frozen=True)
class MachineFacts:
    """The request, and what this machine has."""

    asked: str = ""
    """CLUSTER; when empty, this module chooses."""
    context: str = ""
    """The kubeconfig's current context, or empty."""
    registry: str = ""
    s3_endpoint: str = ""
    docker: bool = False
    """Whether a Docker engine answers; an installed client alone is not enough."""
    kind: bool = False
    k3d: bool = False
    root: bool = False
    debian: bool = False
    foreign_kubelet: str = ""
    """The command line of a kubelet on this machine that we did not start, or empty."""


def choose_kind(facts: MachineFacts, *, only_images: bool = False) -> ClusterKind:
    """Return the kind to use; to build images for another cluster, its registry is enough.

    Raises:
        FatalError: the machine lacks something that the kind needs; the sentence says what.
    """
    if facts.asked not in ("", *ClusterKind):
        allowed = ", ".join(ClusterKind)
        raise FatalError(
            f"CLUSTER={facts.asked} is not one of {allowed}; set one of them, or leave CLUSTER out"
        )
    choice = ClusterKind(facts.asked) if facts.asked else _preferred_kind(facts)
    match choice:
        case ClusterKind.CURRENT:
            _check_current(facts, only_images)
        case ClusterKind.KIND | ClusterKind.K3D:
            _check_docker(facts, choice)
        case ClusterKind.LOCAL:
            _check_local(facts)
    return choice


def machine_facts() -> MachineFacts:
    """Return the facts of this machine and its environment."""
    docker = _output("docker", "version", "--format", "{{.Server.Version}}") != ""
    return MachineFacts(
        asked=os.environ.get("CLUSTER", ""),
        context=_current_context(),
        registry=os.environ.get("REGISTRY", ""),
        s3_endpoint=os.environ.get("S3_ENDPOINT", ""),
        docker=docker,
        kind=shutil.which("kind") is not None,
        k3d=shutil.which("k3d") is not None,
        root=os.geteuid() == 0,
        debian=shutil.which("apt-get") is not None,
        foreign_kubelet=node.foreign_kubelet(folders.state()),
    )


def _preferred_kind(facts: MachineFacts) -> ClusterKind:
    if facts.docker and facts.kind:
        return ClusterKind.KIND
    if facts.docker and facts.k3d:
        return ClusterKind.K3D
    return ClusterKind.LOCAL


def _check_current(facts: MachineFacts, only_images: bool) -> None:
    if only_images:
        if not facts.registry:
            raise FatalError(
                "images for CLUSTER=current need a registry, and REGISTRY is not set; say for "
                "example `make images CLUSTER=current REGISTRY=registry.example.com/team`"
            )
        return
    if not facts.context:
        raise FatalError(
            "CLUSTER=current, but the kubeconfig has no current context; choose one with "
            "`kubectl config use-context`, or leave CLUSTER out to start a cluster here"
        )
    missing = {"REGISTRY": facts.registry, "S3_ENDPOINT": facts.s3_endpoint}
    names = [name for name, value in missing.items() if not value]
    if names:
        raise FatalError(
            f"CLUSTER=current needs an image registry and an S3 endpoint that the cluster "
            f"{facts.context} can reach, and {' and '.join(names)} "
            f"{'is' if len(names) == 1 else 'are'} not set; say for example `make demo "
            "CLUSTER=current REGISTRY=registry.example.com/team S3_ENDPOINT=https://s3.example.com`"
        )


def _check_docker(facts: MachineFacts, choice: ClusterKind) -> None:
    if not facts.docker:
        raise FatalError(f"CLUSTER={choice} needs a Docker engine, but none answers; start it")
    if not (facts.kind if choice is ClusterKind.KIND else facts.k3d):
        raise FatalError(f"CLUSTER={choice}, but the program {choice} is not in PATH; install it")


def _check_local(facts: MachineFacts) -> None:
    instead = "or start a Docker engine and install kind or k3d, or use CLUSTER=current"
    if not facts.root:
        raise FatalError(
            f"a cluster without Docker needs root; run the same command as root, {instead}"
        )
    if not facts.debian:
        raise FatalError(
            f"a cluster without Docker needs Debian or a similar system; use one, {instead}"
        )
    if facts.foreign_kubelet:
        raise FatalError(
            f"this machine is already a node of another cluster ({facts.foreign_kubelet}), and two "
            "clusters cannot share a machine; use that cluster with CLUSTER=current, or stop it"
        )


def _current_context() -> str:
    """Return the current context of the first kubeconfig file that names one, or empty."""
    default = str(Path.home() / ".kube" / "config")
    for name in (os.environ.get("KUBECONFIG") or default).split(os.pathsep):
        with contextlib.suppress(OSError, yaml.YAMLError, AttributeError):
            if context := yaml.safe_load(Path(name).read_text()).get("current-context"):
                return str(context)
    return ""


def _output(*argv: str) -> str:
    """Return what a program prints; empty when it is missing, fails or takes too long."""
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
