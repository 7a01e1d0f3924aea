"""Messages name the program as it was called; terminals get colours, pipes do not."""

import io
import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from flashrun.cli.command_list import COMMANDS
from flashrun.cli.output import terminal
from flashrun.cli.output.tables import Cell, Table
from tests.cli.following import Terminal
from tests.cli.shell import Served, Shell
from tests.servers import kubectl


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


@pytest.mark.parametrize("columns", ["34", "80"])
def test_a_run_takes_one_line_on_a_narrow_terminal(served: Served, run: str, columns: str) -> None:
    with Terminal(served, "runs", COLUMNS=columns, NO_COLOR="1") as screen:
        assert screen.finish() == 0

    header, line = screen.text.splitlines()
    assert header.startswith("RUN ")
    assert line.startswith(run)


class DrawnOutput(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


def drawn_table(monkeypatch: pytest.MonkeyPatch, table: Table, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", screen := DrawnOutput())
    terminal.write_table(table)
    return screen.getvalue().splitlines()


@pytest.mark.parametrize("header", [("A",), ("A", "B"), ("A", "B", "C")])
@pytest.mark.parametrize("narrow", [False, True])
def test_a_table_as_wide_as_the_terminal_is_whole(
    monkeypatch: pytest.MonkeyPatch, header: tuple[str, ...], narrow: bool
) -> None:
    row = tuple(Cell("x" * 10) for _ in header)
    table = Table(header, (row,), header[:0:-1] if narrow else ())

    lines = drawn_table(monkeypatch, table, table.width)
    assert [line.split() for line in lines] == [[*header], ["x" * 10] * len(header)]
    assert max(map(len, lines)) == table.width


def test_a_cell_of_a_table_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(("A",), ((Cell("\x1b]0;owned\x07name\x9b2J"),),))

    assert [line.strip() for line in drawn_table(monkeypatch, table, 80)] == ["A", "name"]


STRINGS = [
    *("12e5", "1e3", "0812345", "08", "0o17", "+.5", "y", "N", "yes", "Off", "null", "~", "7"),
    *("0x1F", "1_000", "2026-11-29", "190:20:30", ".inf", "-.INF", ".nan", "1234e56", "<<", "="),
    *("", " ", "- a", "a: b", "#c", "a #c", "@a", "%a", "`", "'", '"', "two\nlines", "end\n", "\t"),
    *("plain", "org/model", "v1", "Qwen/Qwen3.5-0.8B", "à gauche", "TRUE", "True ", "nullable"),
]


SHORT = ["".join(word) for size in (1, 2, 3) for word in product("018e.+-_:xoyn~", repeat=size)]
"""Among them are numbers, times and truth values of every version of YAML."""


def read_by_kubectl(text: str, kubeconfig: Path) -> Any:
    words = ("create", "--dry-run=client", "-ojson", "-f", "-")
    return json.loads(kubectl(kubeconfig, *words, stdin=text))


def read_by_kustomize(text: str, kubeconfig: Path, folder: Path) -> Any:
    """As Flux does: what kustomize prints goes to the decoder of kubectl."""
    (folder / "run.yaml").write_text(text)
    (folder / "kustomization.yaml").write_text("resources: [run.yaml]\n")
    return read_by_kubectl(kubectl(kubeconfig, "kustomize", str(folder)), kubeconfig)


def read_by_helm(text: str, program: Path, folder: Path) -> Any:
    (folder / "templates").mkdir()
    (folder / "run.yaml").write_text(text)
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: strings, version: 0.1.0}\n")
    template = '{{ .Files.Get "run.yaml" | fromYaml | toJson }}\n'
    (folder / "templates" / "run.json").write_text(template)
    done = subprocess.run(
        [program, "template", "strings", folder], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout[done.stdout.index("{") :])


def test_a_string_in_yaml_is_a_string_for_kubectl_kustomize_and_helm(
    kubeconfig: Path, helm: Path, tmp_path: Path
) -> None:
    values = [*STRINGS, *SHORT]
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "strings", "annotations": {f"a{key}": key for key in "yn8"}},
        "data": {f"value-{number}": text for number, text in enumerate(values)}
        | {text: "key" for text in values if re.fullmatch(r"[-._a-zA-Z0-9]+", text)},
    }
    text = terminal.to_yaml(config_map)
    read = {
        "kubectl": read_by_kubectl(text, kubeconfig),
        "kustomize": read_by_kustomize(text, kubeconfig, tmp_path),
        "helm": read_by_helm(text, helm, tmp_path),
    }

    for program, found in read.items():
        assert found["data"] == config_map["data"], program
        annotations = found["metadata"]["annotations"]
        assert annotations.items() >= config_map["metadata"]["annotations"].items(), program


def test_yaml_leaves_plain_words_without_quotes() -> None:
    assert terminal.to_yaml({"model": "org/model", "seed": 1, "rate": 1e-05, "on": True}) == (
        "model: org/model\nseed: 1\nrate: 1.0e-05\n'on': true\n"
    )


def test_the_last_column_is_cut_where_names_leave_too_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phases = ("Succeeded", "Pending")
    rows = tuple((Cell("n" * 25), Cell("small"), Cell(phase)) for phase in phases)
    lines = drawn_table(monkeypatch, Table(("RUN", "POOL", "PHASE"), rows, ("POOL",)), 34)

    assert [len(line) for line in lines] == [34, 34, 34]
    assert lines[1] == f"{'n' * 25}  Succee…"
