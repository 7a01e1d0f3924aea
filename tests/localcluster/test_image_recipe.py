"""How the images for each kind of cluster are built, and the sentence when they cannot be."""

from dataclasses import replace

import pytest

from localcluster import image_recipe
from localcluster.cluster_kind import ClusterKind, MachineFacts
from localcluster.image_recipe import Recipe, check_recipe, choose_recipe, recipe_for
from localcluster.steps import FatalError

DEBIAN = MachineFacts(root=True, debian=True)
DOCKER = MachineFacts(docker=True)
CURRENT, KIND, LOCAL = ClusterKind.CURRENT, ClusterKind.KIND, ClusterKind.LOCAL

RECIPES = {
    "the cluster that is made here has no GPU": (LOCAL, DEBIAN, "", False, Recipe()),
    "it gets PyTorch for GPUs on request": (LOCAL, DEBIAN, "gpu", False, Recipe(gpus=True)),
    "a cluster of somebody else has GPUs": (CURRENT, DEBIAN, "", False, Recipe(gpus=True)),
    "with Docker its images are built with it": (
        CURRENT, DOCKER, "", False, Recipe(docker=True, gpus=True),
    ),
    "and have vLLM on request": (
        CURRENT, DOCKER, "gpu", True, Recipe(docker=True, gpus=True, vllm=True),
    ),
    "also without Docker": (CURRENT, DEBIAN, "", True, Recipe(gpus=True, vllm=True)),
    "without GPUs it gets Debian's PyTorch": (CURRENT, DEBIAN, "cpu", False, Recipe()),
    "kind is made with Docker, from the Dockerfiles alone": (
        KIND, MachineFacts(), "", False, Recipe(docker=True, gpus=True),
    ),
}  # fmt: skip

SENTENCES = {
    "an unknown word": (LOCAL, DEBIAN, "rocm", False, "TRAINER=rocm is not one of cpu, gpu;"),
    "Debian's PyTorch with Docker": (KIND, DOCKER, "cpu", False, "images for kind are built with"),
    "vLLM without GPUs": (LOCAL, DEBIAN, "", True, "VLLM=yes needs PyTorch for GPUs; set TRAINER"),
    "vLLM and the other PyTorch": (CURRENT, DEBIAN, "cpu", True, "set TRAINER=gpu, or leave VLLM"),
    "neither Docker nor Debian": (CURRENT, MachineFacts(root=True), "", False, "start a Docker"),
    "neither Docker nor root": (CURRENT, MachineFacts(debian=True), "", False, "or run the same"),
    "Debian's PyTorch with Docker alone": (CURRENT, DOCKER, "cpu", False, "or leave TRAINER out"),
}


@pytest.mark.parametrize(
    ("kind", "facts", "trainer", "vllm", "recipe"), RECIPES.values(), ids=RECIPES.keys()
)
def test_images_are_built_for_the_cluster_that_runs_them(
    kind: ClusterKind, facts: MachineFacts, trainer: str, vllm: bool, recipe: Recipe
) -> None:
    assert choose_recipe(kind, facts, trainer, vllm) == recipe


@pytest.mark.parametrize(
    ("kind", "facts", "trainer", "vllm", "sentence"), SENTENCES.values(), ids=SENTENCES.keys()
)
def test_what_cannot_be_built_is_refused_with_a_way_out(
    kind: ClusterKind, facts: MachineFacts, trainer: str, vllm: bool, sentence: str
) -> None:
    with pytest.raises(FatalError) as stop:
        choose_recipe(kind, facts, trainer, vllm)
    assert sentence in str(stop.value)


def test_the_environment_asks_for_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER", "gpu")
    monkeypatch.setenv("VLLM", "yes")
    assert recipe_for(LOCAL) == Recipe(gpus=True, vllm=True)


def test_the_environment_is_checked_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_recipe, "machine_facts", lambda: replace(DEBIAN, asked="local"))
    monkeypatch.setenv("TRAINER", "rocm")
    with pytest.raises(FatalError, match="TRAINER=rocm is not one of"):
        check_recipe()
    monkeypatch.setenv("TRAINER", "cpu")
    check_recipe()


def test_any_other_word_for_vllm_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRAINER", raising=False)
    monkeypatch.setenv("VLLM", "no")
    with pytest.raises(FatalError, match="VLLM=no is not yes; say VLLM=yes, or leave VLLM out"):
        recipe_for(CURRENT)
