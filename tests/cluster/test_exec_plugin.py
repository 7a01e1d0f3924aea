"""Exec plugins: how they are called, and what is wrong with their answers.

``test_kubeconfig`` tests when they are called.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashrun import exec_plugin
from flashrun.exec_plugin import run_exec_plugin

VERSION = "client.authentication.k8s.io/v1"
STATUS = {"token": "t"}


def plugin(folder: Path, answer: str, **keys: Any) -> dict[str, Any]:
    """A plugin beside the kubeconfig that notes its input and answers ``answer``."""
    (folder / "answer").write_text(answer)
    program = folder / "plugin"
    program.write_text(
        f'#!/bin/sh\necho "$1 $KUBERNETES_EXEC_INFO $OWN" >{folder}/call\ncat {folder}/answer\n'
    )
    program.chmod(0o755)
    return {"apiVersion": VERSION, "command": "./plugin", **keys}


def credential(**keys: Any) -> str:
    return json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": STATUS, **keys})


async def test_a_plugin_gets_its_arguments_its_variables_and_the_version(tmp_path: Path) -> None:
    keys = {"args": ["get-token"], "env": [{"name": "OWN", "value": "mine"}]}
    assert await run_exec_plugin(plugin(tmp_path, credential(), **keys), tmp_path) == STATUS

    argument, rest = (tmp_path / "call").read_text().strip().split(" ", 1)
    information, _, own = rest.rpartition(" ")
    assert (argument, own) == ("get-token", "mine")
    assert json.loads(information) == {
        "apiVersion": VERSION,
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }


async def test_a_plugin_is_told_of_the_cluster_when_it_asks(tmp_path: Path) -> None:
    cluster = {"server": "https://api.test", "config": {"audience": "team"}}
    await run_exec_plugin(plugin(tmp_path, credential()), tmp_path, cluster)

    information = json.loads((tmp_path / "call").read_text())
    assert information["spec"] == {"interactive": False, "cluster": cluster}


@pytest.mark.parametrize(
    ("mode", "interactive"),
    [("Always", True), ("IfAvailable", True), (None, True), ("Never", False)],
)
async def test_a_plugin_may_ask_a_person_at_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str | None, interactive: bool
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    keys = {"interactiveMode": mode} if mode else {}
    await run_exec_plugin(plugin(tmp_path, credential(), **keys), tmp_path)

    information = json.loads((tmp_path / "call").read_text())
    assert information["spec"] == {"interactive": interactive}


async def test_a_plugin_that_has_to_ask_a_person_is_refused_without_a_terminal(
    tmp_path: Path,
) -> None:
    asking = plugin(tmp_path, credential(), interactiveMode="Always")
    with pytest.raises(ValueError, match="plugin asks a person, and there is no terminal"):
        await run_exec_plugin(asking, tmp_path)
    assert not (tmp_path / "call").exists()


def script(folder: Path, *lines: str) -> dict[str, Any]:
    """A plugin that is a shell script."""
    program = folder / "plugin"
    program.write_text("\n".join(("#!/bin/sh", *lines, "")))
    program.chmod(0o755)
    return {"apiVersion": VERSION, "command": str(program)}


async def test_what_a_plugin_waits_for_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plugins print where to log in, and wait; this one waits until somebody has read it."""
    monkeypatch.setattr(exec_plugin, "_QUIET_SECONDS", 0.1)
    waits = f"while ! test -e {tmp_path}/in; do sleep 0.05; done"
    asked = script(tmp_path, "echo log in >&2", waits, "echo welcome >&2", f"echo '{credential()}'")
    asking = asyncio.create_task(run_exec_plugin(asked, tmp_path))
    shown = ""
    while "log in\n" not in shown:
        assert not asking.done()
        await asyncio.sleep(0.05)
        shown += capsys.readouterr().err
    (tmp_path / "in").touch()

    assert await asking == STATUS
    assert shown + capsys.readouterr().err == "log in\nwelcome\n"


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whether something that is drawn has been paused, and whether it goes on."""
    seen: list[str] = []

    @contextlib.contextmanager
    def pause() -> Iterator[None]:
        seen.append("paused")
        yield
        seen.append("drawn")

    monkeypatch.setattr(exec_plugin, "DRAWINGS", [pause])
    return seen


async def test_nothing_is_drawn_while_a_plugin_may_ask_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawing: list[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    waits = f"while ! test -e {tmp_path}/answered; do sleep 0.05; done"
    asked = script(tmp_path, f"touch {tmp_path}/asking", waits, f"echo '{credential()}'")
    asking = asyncio.create_task(run_exec_plugin(asked, tmp_path))
    while not (tmp_path / "asking").exists():
        assert not asking.done()
        await asyncio.sleep(0.05)
    assert drawing == ["paused"]
    (tmp_path / "answered").touch()
    assert await asking == STATUS
    assert drawing == ["paused", "drawn"]


@pytest.mark.parametrize(("quiet", "seen"), [(0.05, ["paused", "drawn"]), (600.0, [])])
async def test_nothing_is_drawn_over_what_a_plugin_prints_that_asks_nobody(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    drawing: list[str],
    quiet: float,
    seen: list[str],
) -> None:
    monkeypatch.setattr(exec_plugin, "_QUIET_SECONDS", quiet)
    lines = ("echo log in >&2", "sleep 0.5", "echo welcome >&2", f"echo '{credential()}'")
    await run_exec_plugin(script(tmp_path, *lines) | {"interactiveMode": "Never"}, tmp_path)
    assert drawing == seen


HINTS = {
    "a hint": ("Install it with your package manager.\n  see https://plugin.test",
               ". Install it with your package manager.\n  see https://plugin.test"),
    "none": (None, ""),
}  # fmt: skip


@pytest.mark.parametrize(("hint", "end"), HINTS.values(), ids=HINTS)
async def test_a_plugin_that_is_not_installed_is_named_with_its_hint(
    tmp_path: Path, hint: str | None, end: str
) -> None:
    missing = {"apiVersion": VERSION, "command": "no-such-plugin", "installHint": hint}
    with pytest.raises(ValueError, match="exec: the program no-such-plugin") as no:
        await run_exec_plugin(missing, tmp_path)
    assert str(no.value) == (
        f"exec: the program no-such-plugin cannot be started: No such file or directory{end}"
    )


async def test_a_quick_plugin_shows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exec_plugin, "_QUIET_SECONDS", 600.0)
    asked = script(tmp_path, "echo a warning >&2", f"echo '{credential()}'")
    assert await run_exec_plugin(asked, tmp_path) == STATUS
    assert capsys.readouterr().err == ""


async def test_a_program_that_a_plugin_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    """As kubectl does: it gives the plugin its own standard error."""
    left = f"while ! test -e {tmp_path}/done; do sleep 0.1; done >/dev/null &"
    says = [f"echo '{credential()}'", "echo no >&2; exit 4"]
    try:
        asked = script(tmp_path, left, says[0])
        assert await asyncio.wait_for(run_exec_plugin(asked, tmp_path), 60) == STATUS
        asked = script(tmp_path, left, says[1])
        with pytest.raises(ValueError, match="process returned 4: no"):
            await asyncio.wait_for(run_exec_plugin(asked, tmp_path), 60)
    finally:
        (tmp_path / "done").touch()


async def test_of_much_that_a_plugin_prints_the_end_is_repeated(tmp_path: Path) -> None:
    much = "head -c 300000 /dev/zero | tr '\\0' x"
    asked = script(tmp_path, f"{much} >&2", "echo no such user >&2", "exit 5")
    with pytest.raises(ValueError, match=r"process returned 5: x+no such user$") as no:
        await run_exec_plugin(asked, tmp_path)
    assert len(str(no.value)) < 2100


FAULTS = {
    "no JSON": ("hello", "does not answer an ExecCredential"),
    "a list": ("[]", "does not answer an ExecCredential"),
    "no status": (json.dumps({"apiVersion": VERSION}), "does not answer an ExecCredential"),
    "a status that is none": (credential(status=[]), "answers no status"),
    "another version": (credential(apiVersion="x/v2"), "answers version x/v2"),
}


@pytest.mark.parametrize(("answer", "sentence"), FAULTS.values(), ids=FAULTS)
async def test_an_answer_that_is_not_one_is_named(
    tmp_path: Path, answer: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        await run_exec_plugin(plugin(tmp_path, answer), tmp_path)


async def test_what_a_plugin_that_fails_says_is_repeated(tmp_path: Path) -> None:
    failing = script(tmp_path, "echo log in first >&2", "exit 3")
    with pytest.raises(ValueError, match="process returned 3: log in first"):
        await run_exec_plugin(failing, tmp_path)


async def test_the_signal_that_ends_a_plugin_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"signal 9 ended the process \(Killed\): out of luck"):
        await run_exec_plugin(script(tmp_path, "echo out of luck >&2", "kill -9 $$"), tmp_path)
