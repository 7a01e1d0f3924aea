"""The node: its programs start in any order, and it deletes only images that nothing uses."""

from pathlib import Path
from typing import Any

import pytest

from localcluster.node import Node, unused_images
from localcluster.process import wait_until

LAST_WORDS = {
    "containerd is not ready for it": ("rpc error: desc = server is not initialized yet", True),
    "something else is wrong": ("failed to load kubeconfig", False),
}


@pytest.mark.parametrize(("words", "early"), LAST_WORDS.values(), ids=LAST_WORDS)
def test_a_kubelet_is_started_again_when_it_came_too_early(tmp_path: Path, words: str, early: bool):
    nobody: Any = None
    node = Node(tmp_path, nobody, nobody)
    node.daemons.start("kubelet", ["sh", "-c", f"echo '{words}'; exec sleep 600"])
    assert wait_until(lambda: node.daemons.last_log_line("kubelet") == words, 10)
    assert not node.kubelet_started_too_early()
    node.daemons.stop("kubelet")
    assert node.kubelet_started_too_early() == early


OURS = "127.0.0.1:20000/flashrun/trainer@sha256:"
STORED = {
    f"{OURS}old": "sha256:old",
    "sha256:id-of-old": "sha256:old",
    f"{OURS}new": "sha256:new",
    "sha256:id-of-new": "sha256:new",
    "localhost/pause:1": "sha256:pause",
    "sha256:id-of-pause": "sha256:pause",
}


def test_our_images_that_nothing_uses_are_deleted():
    assert unused_images(STORED, {f"{OURS}new"}) == [f"{OURS}old", "sha256:id-of-old"]


def test_an_image_known_by_another_name_too_keeps_its_layers():
    before_the_port_changed = {"127.0.0.1:1/flashrun/trainer@sha256:new": "sha256:new"}
    stored = STORED | before_the_port_changed
    assert set(unused_images(stored, {f"{OURS}new", f"{OURS}old"})) == set(before_the_port_changed)
