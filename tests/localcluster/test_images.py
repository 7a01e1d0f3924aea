"""The two images: how they are built, which old ones are removed, what a build gets from here."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from localcluster import folders, images
from localcluster.cluster_kind import ClusterKind
from localcluster.images import Images, layers_in_build_log, outdated_images, pip_settings
from localcluster.lifecycle import DevCluster
from localcluster.steps import StepRunner
from tests.localcluster.stand_ins import StandIns

BUILD = f"""\
[1/2] STEP 1/3: FROM localhost/flashrun/python:f6c0 AS build
[1/2] STEP 2/3: COPY requirements.txt /build/
--> Using cache {"c" * 64}
--> cccccccccccc
[1/2] STEP 3/3: RUN pip install -r /build/requirements.txt
Successfully installed a-1.0
--> 3454c88f5fb
[2/2] COMMIT localhost/flashrun/operator:local
--> dca2d44cd1a
Successfully tagged localhost/flashrun/operator:local
dca2d44cd1a58fa3dd32dd76eed2e6d567ada6eb9597af38be24c84428f7504e
"""


def image(letters: str, made: int, *names: str) -> dict:
    """An image as `buildah images --json` lists it."""
    digest = "sha256:" + letters.ljust(64, "0")
    return {"id": digest, "names": list(names) or None, "createdatraw": f"2026-11-22T20:{made:02}"}


def test_a_build_names_every_layer_that_it_made_or_found():
    assert layers_in_build_log(BUILD) == {"c" * 64, "c" * 12, "3454c88f5fb", "dca2d44cd1a"}


KEPT = {
    "a layer that the newest build made": image("3454c88f5fb", 1),
    "a layer that it found": image("cccccccccccc" + "c" * 52, 1),
    "the image itself": image("dca2d44cd1a", 1, "localhost/flashrun/operator:local"),
    "a base image": image("ba5e", 1, "localhost/flashrun/python:f6c0"),
}
GONE = {
    "a layer of an earlier build": image("0ld", 1),
    "a base of an earlier recipe": image("ba5e", 1, "localhost/flashrun/python:0000"),
}


@pytest.mark.parametrize("one", KEPT.values(), ids=KEPT.keys())
def test_what_the_next_build_can_use_stays(one):
    assert (
        outdated_images([one], layers_in_build_log(BUILD), ["localhost/flashrun/python:f6c0"]) == []
    )


@pytest.mark.parametrize("one", GONE.values(), ids=GONE.keys())
def test_what_no_build_uses_goes(one):
    assert outdated_images(
        [one], layers_in_build_log(BUILD), ["localhost/flashrun/python:f6c0"]
    ) == [one["id"]]


def test_an_image_goes_before_the_one_it_is_made_of():
    parent, child = image("a", 1), image("b", 2)
    assert outdated_images([parent, child], layers_in_build_log(BUILD), []) == [
        child["id"],
        parent["id"],
    ]


def test_pip_settings_come_from_files_and_the_environment_wins(tmp_path, monkeypatch):
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://from-file\ntimeout = 9\ncert = /x.pem\n")
    monkeypatch.setattr(images, "PIP_FILES", (str(file),))
    for key in images.PIP_KEYS:
        monkeypatch.delenv("PIP_" + key.upper().replace("-", "_"), raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://from-environment")
    assert pip_settings() == {"index-url": "https://from-environment", "timeout": "9"}


def test_a_base_image_is_made_again_when_its_recipe_changes():
    assert images.recipe_hash(["trixie"], ["python3"]) == images.recipe_hash(
        ["trixie"], ["python3"]
    )
    assert images.recipe_hash(["trixie"], ["python3"]) != images.recipe_hash(
        ["trixie"], ["python3", "git"]
    )


WITH_KIND = DevCluster(
    kind=ClusterKind.KIND,
    kubeconfig=Path("kubeconfig"),
    registry="127.0.0.1:20123",
    storage_endpoint="http://172.18.0.1:9000",
    access_key="key",
    secret_key="hush",
    host_ip="172.18.0.1",
)


def test_with_docker_the_list_of_packages_is_read_out_of_the_image(
    stand_ins: StandIns, steps: StepRunner
) -> None:
    stand_ins.add("docker")
    image = "127.0.0.1:20123/flashrun/trainer:local"
    words = f"docker run --rm --entrypoint cat {image} {images.SBOM}"
    listed = "{\n" + "\n" * 5_000 + "}\n"  # longer than what a step returns
    stand_ins.answer(words, listed)
    assert images.read_sbom(WITH_KIND, "trainer", steps) == listed


def test_with_docker_an_image_is_built_pushed_and_known_by_its_digest(
    stand_ins: StandIns, steps: StepRunner
) -> None:
    """docker is a recording stand-in that answers in the format of the real program."""
    kind = WITH_KIND
    references = {
        name: f"127.0.0.1:20123/flashrun/{name}@sha256:{letter * 64}"
        for name, letter in (("operator", "a"), ("trainer", "b"))
    }
    stand_ins.add("docker")
    for name, reference in references.items():
        inspect = 'docker inspect -f {{join .RepoDigests "\\n"}} '
        other = f"elsewhere.example.com/{name}@sha256:{'c' * 64}"
        stand_ins.answer(f"{inspect}127.0.0.1:20123/flashrun/{name}", f"{other}\n{reference}\n")
    assert images.build(kind, steps) == Images(**references)
    root = folders.repository()
    assert stand_ins.lines()[:2] == [
        "docker build -t 127.0.0.1:20123/flashrun/operator:local "
        f"-f {root / 'operator/Dockerfile'} {root}",
        "docker push 127.0.0.1:20123/flashrun/operator:local",
    ]
    assert [line.split()[1] for line in stand_ins.lines()] == ["build", "push", "inspect"] * 2


def test_images_for_the_current_cluster_are_built_with_docker_for_gpus(
    stand_ins: StandIns, steps: StepRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's PyTorch, which the cluster that is made here gets, would see no GPU there."""
    monkeypatch.setenv("VLLM", "yes")
    monkeypatch.delenv("TRAINER", raising=False)
    kind = replace(WITH_KIND, kind=ClusterKind.CURRENT, registry="registry.example/team")
    stand_ins.add("docker")
    stand_ins.answer("docker version", "29.0\n")
    stand_ins.answer("docker inspect", f"registry.example/team/flashrun/it@sha256:{'a' * 64}\n")
    images.build(kind, steps)

    built = [line for line in stand_ins.lines() if line.startswith("docker build")]
    assert ["--build-arg VLLM=yes" in line for line in built] == [False, True]
    assert not [line for line in built if "BASE_IMAGE" in line]


def test_a_command_runs_in_the_trainer_image_with_mounts(
    stand_ins: StandIns, steps: StepRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "flashrun").mkdir()
    local = DevCluster(
        kind=ClusterKind.LOCAL,
        kubeconfig=Path("kubeconfig"),
        registry="127.0.0.1:20123",
        storage_endpoint="http://10.244.0.1:9000",
        access_key="key",
        secret_key="hush",
        host_ip="10.244.0.1",
    )
    stand_ins.add("buildah", "docker")
    monkeypatch.setattr(images, "_command", lambda *words: ["buildah", *words])
    stand_ins.answer("buildah from", "container-1\n")
    stand_ins.answer("buildah run", "42\n")
    words, mounts = ["python3", "answer.py"], {Path("/model"): "/mnt/model"}
    assert images.run_in_trainer(local, words, mounts, steps) == "42\n"
    on_docker = replace(local, kind=ClusterKind.KIND)
    images.run_in_trainer(on_docker, words, mounts, steps)

    assert stand_ins.lines()[1:] == [
        "buildah from --pull-never localhost/flashrun/trainer:local",
        "buildah run --isolation=chroot --user 0 --env HF_HUB_OFFLINE=1 "
        "--volume /model:/mnt/model container-1 -- python3 answer.py",
        "buildah rm container-1",
        f"docker run --rm --user {os.getuid()}:{os.getgid()} --entrypoint python3 "
        "--env HF_HUB_OFFLINE=1 --volume /model:/mnt/model "
        "127.0.0.1:20123/flashrun/trainer:local answer.py",
    ]
