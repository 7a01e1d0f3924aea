"""The node's programs find each other, whoever is up first."""

from pathlib import Path
from typing import Any

import pytest

from localcluster.node import Node
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
