"""A command in a fork does what the same command in a new process does."""

import os
import signal
import subprocess
import threading
from dataclasses import replace

import pytest

from tests.cli import forked_commands
from tests.cli.forked_commands import Redirected, Redirection
from tests.cli.shell import PYTHON_PATH, REFERENCE, Shell

COMMANDS: list[tuple[str, str | None, dict[str, str]]] = [
    ("--help", None, {"COLUMNS": "40"}),
    ("env --help", None, {"PYTHONIOENCODING": "ascii"}),
    ("train", None, {}),
    ("train config.toml --dry-run -o json", None, {}),
    ("train - --dry-run", REFERENCE.replace("# ", "# \N{CHECK MARK}"), {}),
    ("explain stepz", None, {"NO_COLOR": "1"}),
    ("models --offline", None, {"HTTPS_PROXY": "http://127.0.0.1:9"}),
    ("runs", None, {"KUBECONFIG": "absent"}),
    ("env setup new", None, {}),
    ("env test new", None, {"EXPORTED": "1"}),
    ("", None, {"_FLASH_COMPLETE": "complete_bash", "COMP_WORDS": "flash tr", "COMP_CWORD": "1"}),
]
"""What is typed, what it reads, and what is exported."""


def test_a_fork_prints_writes_and_ends_as_a_new_process(shell: Shell) -> None:
    places = [replace(shell, folder=shell.folder / name) for name in ("fork", "anew")]
    for place in places:
        place.write("config.toml", REFERENCE)
    for words, stdin, variables in COMMANDS:
        fork, anew = (replace(place, variables=variables) for place in places)
        done = fork(*words.split(), stdin=stdin)
        expected = anew.in_new_process(*words.split(), stdin=stdin)

        assert (done.returncode, done.stdout, done.stderr) == (
            expected.returncode,
            expected.stdout,
            expected.stderr,
        ), words
    made, known = (
        {str(path.relative_to(place.folder)) for path in place.folder.glob("new/**/*")}
        for place in places
    )
    assert made == known != set()


REDIRECTED: list[tuple[str, Redirected]] = [
    *((words, {1: Redirection.FULL}) for words in ("--help", "version", "schema", "train")),
    ("models --offline", {2: Redirection.FULL}),
    ("version", dict.fromkeys((1, 2), Redirection.FULL)),
    *((words, {1: Redirection.UNREAD}) for words in ("--help", "schema", "explain stepz")),
    ("version", {1: Redirection.CLOSED}),
    *((words, dict.fromkeys(range(3), Redirection.CLOSED)) for words in ("--help", "train")),
]
"""What is typed, and where its streams lead."""


@pytest.mark.parametrize(("words", "redirected"), REDIRECTED)
def test_a_fork_has_streams_as_a_new_process(
    shell: Shell, words: str, redirected: Redirected
) -> None:
    done = shell(*words.split(), redirected=redirected)
    expected = shell.in_new_process(*words.split(), redirected=redirected)

    assert done.returncode == expected.returncode
    # A stream that leads elsewhere has nothing to read.
    assert (done.stdout, done.stderr) == (expected.stdout or "", expected.stderr or "")


def test_a_fork_leaves_nothing_to_the_next_one(shell: Shell) -> None:
    with_help = shell("--help")
    shell("env", "setup", "new")

    assert replace(shell, variables={"COLUMNS": "30"})("--help").stdout != with_help.stdout
    assert shell("--help").stdout == with_help.stdout


@pytest.mark.parametrize("name", ["PYTHONUTF8", "PYTHONPATH", "LC_ALL", "LANG"])
def test_what_only_a_new_process_reads_is_refused(shell: Shell, name: str) -> None:
    with pytest.raises(ValueError, match="in_new_process"):
        replace(shell, variables={name: "other"})("version")


def test_a_command_that_does_not_end_is_ended(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = forked_commands.fork_server(PYTHON_PATH)
    killed: list[int] = []
    kill = forked_commands.os.kill
    monkeypatch.setattr(
        forked_commands.os, "kill", lambda process, code: (killed.append(code), kill(process, code))
    )
    with pytest.raises(subprocess.TimeoutExpired):
        server.run(["flash", "version"], shell.environment, shell.folder, None, 0, {})

    assert killed == [signal.SIGKILL]


def test_a_command_whose_child_keeps_its_streams_is_not_waited_for_without_end(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = forked_commands.fork_server(PYTHON_PATH)
    pipe, kept = os.pipe, list[int]()

    def kept_open() -> tuple[int, int]:
        ends = pipe()
        kept.append(os.dup(ends[1]))  # as a child would have it
        return ends

    def close() -> None:
        while kept:
            os.close(kept.pop())

    monkeypatch.setattr(forked_commands.os, "pipe", kept_open)
    later = threading.Timer(10, close)
    later.start()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            server.run(["flash", "version"], shell.environment, shell.folder, None, 2, {})
    finally:
        later.cancel()
        close()
