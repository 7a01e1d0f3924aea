"""Options that several commands share."""

import pytest

from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import Shell


@pytest.mark.parametrize("namespace", ["..", "a/b", "a?x=1", "Team A", "ü", "-a", "a" * 64])
def test_what_cannot_be_a_namespace_is_no_part_of_a_request(shell: Shell, namespace: str) -> None:
    for words in (("runs",), ("cancel", "run"), ("render", "config.toml"), ("sweep", "status")):
        done = shell(*words, f"--namespace={namespace}")

        assert done.returncode == ExitCode.USAGE
        assert f"{namespace!r} is not the name of a namespace" in done.stderr


def test_an_empty_namespace_is_the_one_of_the_kubeconfig(shell: Shell) -> None:
    assert "namespace: " not in shell("render", "config.toml", "-n", "").stdout
