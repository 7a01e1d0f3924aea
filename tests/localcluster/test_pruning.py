"""Old images go, and only they: what a build would find again stays, and what may run again."""

import pytest

from localcluster import lifecycle
from localcluster.cluster_kind import ClusterKind
from localcluster.images import layers_in_build_log, outdated_images
from localcluster.node import unused_images
from localcluster.steps import StepRunner

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


OURS = "127.0.0.1:20000/flashrun/trainer@sha256:"
STORED = {
    f"{OURS}old": "sha256:old",
    "sha256:id-of-old": "sha256:old",
    f"{OURS}new": "sha256:new",
    "sha256:id-of-new": "sha256:new",
    "localhost/pause:1": "sha256:pause",
    "sha256:id-of-pause": "sha256:pause",
}


def test_the_node_forgets_our_images_that_nothing_uses():
    assert unused_images(STORED, {f"{OURS}new"}) == [f"{OURS}old", "sha256:id-of-old"]


def test_an_image_known_by_another_name_too_keeps_its_layers():
    before_the_port_changed = {"127.0.0.1:1/flashrun/trainer@sha256:new": "sha256:new"}
    stored = STORED | before_the_port_changed
    assert set(unused_images(stored, {f"{OURS}new", f"{OURS}old"})) == set(before_the_port_changed)


def test_somebody_elses_registry_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(lifecycle, "remembered_kind", lambda: ClusterKind.CURRENT)
    monkeypatch.setenv("PATH", "")  # nothing can be run
    steps = StepRunner.silent(tmp_path)
    lifecycle.delete_unused_images([], steps)
    steps.close()
