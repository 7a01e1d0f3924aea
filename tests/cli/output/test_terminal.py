"""Messages name the program as it was called; terminals get colours, pipes do not."""

import subprocess
import sys

import pytest

from flashrun.cli.command_list import COMMANDS
from flashrun.cli.output import terminal
from tests.cli.following import Terminal
from tests.cli.shell import Served, Shell


@pytest.mark.parametrize("command", [entry.name for entry in COMMANDS])
def test_a_command_in_a_message_is_spelled_as_the_program_was_called(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kubectl-flash"])

    assert terminal.as_typed(f"use flash {command} RUN") == f"use kubectl flash {command} RUN"


def test_other_words_in_a_message_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/flashrun"])
    text = "flash memory, reflash runs, flash logs, kubectl get flashruns"

    assert terminal.as_typed(text) == text


@pytest.mark.parametrize("name", ["flash", "flashrun", "kubectl-flash"])
def test_hints_use_the_name_that_was_typed(shell: Shell, name: str) -> None:
    program = shell.write(name, "from flashrun.cli.main import main\nmain()\n")
    done = subprocess.run(
        [sys.executable, str(program), "status", "x/y"],
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 3
    assert f"hint: {name.replace('-', ' ')} runs lists them" in done.stderr


@pytest.mark.parametrize("name", ["flash", "flashrun", "kubectl-flash"])
def test_help_uses_the_name_that_was_typed(shell: Shell, name: str) -> None:
    program = shell.write(name, "from flashrun.cli.main import main\nmain()\n")
    typed = name.replace("-", " ")
    for words, example in ((["--help"], "env setup"), (["env", "push", "-h"], "env push ./sums")):
        done = subprocess.run(
            [sys.executable, str(program), *words],
            env=shell.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        told = " ".join(done.stdout.split())
        assert f"Usage: {typed}" in told
        assert f": {typed} {example}" in told


def test_a_terminal_gets_drawn_tables_and_no_colour_only_when_asked(served: Served) -> None:
    for variables, styled in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Terminal(served, "gpus", **variables) as screen:
            assert screen.finish() == 0
        assert "POOL" in screen.text
        assert ("\x1b[" in screen.text) is styled
