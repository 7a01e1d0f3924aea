"""Completion in a shell: commands, options, config keys and names of runs."""

import subprocess
import sys

import pytest

from tests.cli.app import CLIENTS, COMMAND_MODULES, SLOW, loaded_modules
from tests.cli.shell import Served, Shell


def completed(shell: Shell, line: str) -> list[str]:
    """Return what bash offers for the last word of ``line``."""
    words = ["-c", "from flashrun.cli.main import main; import sys; sys.argv = ['flash']; main()"]
    done = subprocess.run(
        [sys.executable, *words],
        env={
            **shell.environment,
            "_FLASH_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        },
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("flash re", {"rerun", "render", "report"}),
        ("flash env pu", {"push", "pull"}),
        ("flash train --dr", {"--dry-run"}),
        ("flash explain train.s", {"train.steps", "train.save_every", "train.stop_sequences"}),
        ("flash status fla", set()),  # no cluster, no complaint
    ],
)
def test_a_shell_completes_commands_options_and_keys(
    shell: Shell, line: str, offered: set[str]
) -> None:
    assert set(completed(shell, line)) == offered


def test_completing_a_command_loads_none(shell: Shell) -> None:
    variables = {"_FLASH_COMPLETE": "complete_bash", "COMP_WORDS": "flash ", "COMP_CWORD": "1"}

    assert loaded_modules(shell, [], **variables) & (CLIENTS | SLOW | COMMAND_MODULES) == set()


def test_completion_can_be_installed(shell: Shell) -> None:
    assert "--install-completion" in shell("--help").stdout


def test_a_shell_completes_the_names_of_runs(served: Served, run: str) -> None:
    shell = Shell(
        served.flash.folder,
        served.flash.kubeconfig,
        {"_FLASH_COMPLETE": "complete_bash", "COMP_WORDS": "flash status fl", "COMP_CWORD": "2"},
    )

    assert shell().stdout.split() == [run]
