"""What commands that ask the cluster load: importing is most of their time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.api_stub import RUN, serve_finished_run
from tests.cli.app import CLIENTS, loaded_modules
from tests.cli.shell import REFERENCE, Shell

RECORDS = "flashrun.api.records"
UNUSED = CLIENTS | {
    "rich",
    "packaging",
    "requests",
    "flashrun.port_forward",
    "flashrun.store",
    "flashrun.cli.cluster.follow",
}
"""What a command that only reads a run or the platform has no use for."""

ANSWERS = {
    f"status {RUN}": UNUSED | {RECORDS, "flashrun.api.public"},
    f"checkpoints {RUN}": UNUSED | {RECORDS, "flashrun.api.public", "flashrun.plan"},
    "runs": UNUSED | {RECORDS, "flashrun.api.public"},
    "gpus": UNUSED | {RECORDS, "flashrun.api.resource", "flashrun.plan"},
    "models": UNUSED | {"flashrun.api.resource"},
}


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with serve_finished_run(tmp_path_factory.mktemp("api")) as path:
        yield path


@pytest.fixture
def shell(kubeconfig: Path, tmp_path: Path) -> Shell:
    return Shell(tmp_path, kubeconfig)


@pytest.mark.parametrize("words", ANSWERS)
def test_an_answer_from_the_cluster_loads_only_what_it_needs(shell: Shell, words: str) -> None:
    loaded = loaded_modules(shell, words.split())

    assert f"flashrun.cli.commands.{words.split()[0]}" in loaded
    assert "flashrun.cluster" in loaded
    assert loaded & ANSWERS[words] == set()


@pytest.mark.parametrize("words", ANSWERS)
def test_these_answers_are_those_of_a_cluster(shell: Shell, words: str) -> None:
    """What the other test measures is not a way to fail early."""
    done = shell(*words.split())

    assert done.returncode == 0
    assert "error" not in done.stderr
    assert ("h100" if words in ("gpus", "models") else RUN) in done.stdout


def test_a_simple_list_of_packages_in_a_config_loads_no_parser_of_requirements(
    shell: Shell,
) -> None:
    listed = REFERENCE.replace("[train]", 'pip = ["openai", "numpy>=2.1"]\n\n[train]')
    shell.write("config.toml", listed)

    assert "packaging" not in loaded_modules(shell, ["train", "config.toml", "--dry-run"])
