"""How the images for a cluster are built: facts in, a recipe or an error out.

A cluster of somebody else has GPUs, so its trainer image has the PyTorch that the Dockerfile names.
The cluster that is made here has none: Debian's PyTorch is smaller, and there without Docker.
"""

import os
from dataclasses import dataclass

from localcluster.cluster_kind import ClusterKind, MachineFacts, choose_kind, machine_facts
from localcluster.steps import FatalError

TRAINERS = ("cpu", "gpu")
"""Values of the variable TRAINER."""


@dataclass(frozen=True)
class Recipe:
    """How the two images are built."""

    docker: bool = False
    """With Docker and the base images that the Dockerfiles name; otherwise with buildah."""
    gpus: bool = False
    """The trainer has PyTorch for GPUs; otherwise Debian's for CPUs."""
    vllm: bool = False
    """The trainer has vLLM, too."""


def choose_recipe(kind: ClusterKind, facts: MachineFacts, trainer: str, vllm: bool) -> Recipe:
    """Return how the images for a cluster of this kind are built.

    `trainer` is the variable TRAINER: `cpu`, `gpu`, or empty for what the kind has by default.

    Raises:
        FatalError: the machine lacks something that the recipe needs; the sentence says what.
    """
    if trainer not in ("", *TRAINERS):
        raise FatalError(
            f"TRAINER={trainer} is not one of {', '.join(TRAINERS)}; set one of them, or leave "
            "TRAINER out"
        )
    on_docker = kind in (ClusterKind.KIND, ClusterKind.K3D)
    if on_docker and trainer == "cpu":
        raise FatalError(
            f"TRAINER=cpu takes PyTorch from Debian, and images for {kind} are built with Docker; "
            "leave TRAINER out, or use CLUSTER=local"
        )
    gpus = trainer != "cpu" if kind is ClusterKind.CURRENT or on_docker else trainer == "gpu"
    if vllm and not gpus:
        raise FatalError("VLLM=yes needs PyTorch for GPUs; set TRAINER=gpu, or leave VLLM out")
    docker = on_docker or (kind is ClusterKind.CURRENT and gpus and facts.docker)
    if kind is ClusterKind.CURRENT and not docker and not (facts.root and facts.debian):
        if not gpus:
            raise FatalError(
                "TRAINER=cpu takes PyTorch from Debian, and needs Debian and root also where there "
                "is Docker; run the same command as root on Debian, or leave TRAINER out"
            )
        raise FatalError(
            "images are built with Docker, or on Debian as root; start a Docker engine, or run the "
            "same command as root on Debian"
        )
    return Recipe(docker=docker, gpus=gpus, vllm=vllm)


def recipe_for(kind: ClusterKind) -> Recipe:
    """Return how this machine builds the images for a cluster, as its environment asks.

    Raises:
        FatalError: a variable has a wrong value, or `choose_recipe` refuses.
    """
    vllm = os.environ.get("VLLM", "")
    if vllm not in ("", "yes"):
        raise FatalError(f"VLLM={vllm} is not yes; say VLLM=yes, or leave VLLM out")
    facts = machine_facts() if kind is ClusterKind.CURRENT else MachineFacts()
    return choose_recipe(kind, facts, os.environ.get("TRAINER", ""), vllm == "yes")


def check_recipe() -> None:
    """Refuse what the images could not be built with, before minutes go into a cluster.

    Raises:
        FatalError: as `recipe_for`, or there is no cluster that could be started.
    """
    recipe_for(choose_kind(machine_facts(), only_images=True))
