"""``flash chat``: it finds the server of an adapter, and prints the answer as it is written.

The forwarding of its port is left out: it needs a pod.
"""

import contextlib
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flashrun import port_forward
from flashrun.cli.commands import chat as command
from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import Served, Shell
from tests.cli.storage import trained_run


@pytest.fixture
def trained(served: Served) -> str:
    name = trained_run(served, 5)
    done = served.flash("serve", name, "--apply", "--engine", "transformers")
    assert done.returncode == 0, done.stderr
    return name


def test_the_answer_of_the_server_that_serves_the_adapter_is_printed(
    served: Served, trained: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    asked: list[Any] = []

    async def stream(
        address: str, model_id: str, messages: Any, settings: Any
    ) -> AsyncIterator[str]:
        asked.append((address, model_id, [*messages], settings))
        yield "4"
        yield "2"

    @contextlib.asynccontextmanager
    async def forwarded(_: Any, name: str, namespace: str, port: int) -> AsyncIterator[str]:
        yield f"http://{name}.{namespace}:{port}"

    monkeypatch.setattr(port_forward, "forwarded_service", forwarded)
    monkeypatch.setattr(command, "stream_answer", stream)
    monkeypatch.setenv("KUBECONFIG", str(served.flash.kubeconfig))

    command.chat(f"{trained}/step-5", "17 + 25?", system="Be short.", namespace=None, context=None)
    command.chat(trained, "17 + 25?", base=True, name=f"{trained}-serve")

    assert capsys.readouterr().out == "42\n42\n"
    first, second = asked
    assert first[0] == f"http://{trained}-serve.{served.namespace}:8000"
    assert first[1] == f"{trained}/step-5"
    assert first[2] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "17 + 25?"},
    ]
    assert first[3] == {
        "max_tokens": 512,
        "temperature": 0.0,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert second[1] == "Qwen/Qwen3.5-4B"


def test_an_adapter_that_no_server_serves_is_not_found(served: Served, trained: str) -> None:
    server = f"{trained}-serve"
    for words, said in (
        ((f"{trained}/step-10",), "--apply"),
        ((trained, "--name", "another"), "--apply"),
        ((f"{trained}/step-10", "--name", server), f"server {server} in namespace"),
    ):
        done = served.flash("chat", *words, stdin="17 + 25?")

        assert done.returncode == ExitCode.NOT_FOUND
        assert said in done.stderr


def test_of_several_servers_one_is_named(served: Served, trained: str) -> None:
    again = ("--name", "another", "--engine", "transformers", "--apply")
    assert served.flash("serve", f"{trained}/step-5", *again).returncode == 0

    done = served.flash("chat", f"{trained}/step-5", "17 + 25?")

    assert done.returncode == ExitCode.USAGE
    assert f"2 servers in namespace {served.namespace} serve {trained}/step-5" in done.stderr
    assert f"choose one with --name: another, {trained}-serve" in done.stderr


def test_a_namespace_that_does_not_exist_is_named(served: Served) -> None:
    done = served.flash("chat", "flash-1-a", "17 + 25?", "-n", "nosuch")

    assert done.returncode == ExitCode.NOT_FOUND
    assert "the namespace nosuch does not exist" in done.stderr


@pytest.mark.parametrize(
    ("ref", "stdin", "said"),
    [("Run", "a", "is not an adapter reference"), ("run", " \n", "standard input has no prompt")],
)
def test_a_wrong_command_asks_no_cluster(shell: Shell, ref: str, stdin: str, said: str) -> None:
    done = shell("chat", ref, stdin=stdin)

    assert done.returncode == ExitCode.USAGE
    assert said in done.stderr


def test_a_prompt_that_says_nothing_is_refused(shell: Shell) -> None:
    assert "the prompt is empty" in shell("chat", "run", " ").stderr
    program = subprocess.run(
        shell.argv("chat", "run"),
        input=b"\xff\xfe",
        capture_output=True,
        env=shell.environment | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert program.returncode == ExitCode.USAGE
    assert b"standard input is not text in utf-8" in program.stderr
    for words in (("\udcff",), ("hello", "--system", "\udcff")):
        done = shell.in_new_process("chat", "run", *words)
        assert done.returncode == ExitCode.USAGE
        assert "has bytes that are not UTF-8 text" in done.stderr


async def test_a_conversation_goes_on_until_nothing_more_is_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = iter(["", "\udcff", "one"])

    def typed(_: str) -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr("builtins.input", typed)

    assert await command._typed() == "one"
    assert await command._typed() is None
