"""Whatever standard output and error lead to, a command ends with its exit code and a sentence."""

import os
import re
import subprocess
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import pytest
from rich.cells import cell_len

from flashrun.cli.output.failure import ExitCode
from tests.cli.finished_run import FinishedRun
from tests.cli.following import Terminal
from tests.cli.shell import Shell

_numbers = count(1)


class Command(NamedTuple):
    """What is typed, and how it ends."""

    words: str
    code: ExitCode = ExitCode.OK
    in_cluster: bool = False
    answers: bool = True
    """Whether it writes to standard output when all is well."""


class Typed(NamedTuple):
    """A command in a shell, which has a run in its cluster if the command needs one."""

    shell: Shell
    words: list[str]
    code: ExitCode
    answers: bool


OFFLINE = [
    Command("version"),
    Command("--help"),
    Command("env --help"),
    Command("models --offline"),  # with a note on standard error
    Command("train config.toml --dry-run"),
    Command("train", ExitCode.USAGE),
    Command("explain stepz", ExitCode.USAGE),
    Command("status UPPER", ExitCode.NOT_FOUND),
]
TABLES = ("runs", "models", "gpus", "metrics RUN", "env list", "model list", "diff RUN OTHER")
"""Commands that draw a table on a terminal."""
CLUSTER = [
    *(Command(words, in_cluster=True) for words in TABLES),
    *(
        Command(words, in_cluster=True)
        for words in (
            *("status RUN -f", "log RUN -f", "rollouts RUN", "report RUN --out NEW.html"),
            *("checkpoints RUN", "pull RUN NEW", "cancel RUN", "env pull your-org/your-env NEW"),
            *("train config.toml --dry-run --server", "train config.toml --background"),
            *("rerun RUN --background", "doctor"),
        )
    ),
    Command("save RUN", ExitCode.USAGE, in_cluster=True),  # it has ended
    Command("train config.toml -n nowhere", ExitCode.NOT_FOUND, in_cluster=True),
]


OFFLINE_ONLY = pytest.mark.parametrize(
    "typed", OFFLINE, ids=lambda command: command.words, indirect=True
)
"""What happens below every command in the same place is tried with few of them."""


@pytest.fixture(params=[*OFFLINE, *CLUSTER], ids=lambda command: command.words)
def typed(request: pytest.FixtureRequest, shell: Shell) -> Typed:
    command: Command = request.param
    if command.in_cluster:
        return in_cluster(command, request.getfixturevalue("finished_run"))
    return Typed(shell, command.words.split(), command.code, command.answers)


def in_cluster(command: Command, run: FinishedRun) -> Typed:
    """A command about the run; what it writes has a new name each time."""
    places = {"RUN": run.name, "OTHER": run.other, "NEW": f"new-{next(_numbers)}"}
    words = re.sub("|".join(places), lambda found: places[found[0]], command.words)
    return Typed(run.served.flash, words.split(), command.code, command.answers)


def end(typed: Typed, redirections: str, **variables: str) -> tuple[int, str]:
    """Run ``flash`` with streams as a shell redirects them; return exit code and what is left."""
    shell = replace(typed.shell, variables={**typed.shell.variables, **variables})
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *shell.argv(*typed.words)],
        env=shell.environment,
        cwd=shell.folder,
        capture_output=True,
        check=False,
        timeout=120,
    )
    printed = (done.stdout + done.stderr).decode(variables.get("PYTHONIOENCODING", "utf-8"))
    assert "Traceback" not in printed
    assert "Exception ignored" not in printed
    return done.returncode, printed


def test_closed_streams_change_nothing(typed: Typed) -> None:
    assert end(typed, "<&- >&- 2>&-")[0] == typed.code


@OFFLINE_ONLY
def test_a_closed_answer_changes_nothing(typed: Typed) -> None:
    assert end(typed, ">&-")[0] == typed.code


@OFFLINE_ONLY
def test_a_full_disk_below_standard_error_changes_nothing(typed: Typed) -> None:
    assert end(typed, "2>/dev/full")[0] == typed.code


def test_a_full_disk_below_the_answer_is_named(typed: Typed) -> None:
    lost = typed.code is ExitCode.OK and typed.answers
    ending, printed = end(typed, ">/dev/full")

    assert ending == (ExitCode.RUN_FAILED if lost else typed.code)
    assert ("error: No space left on device\n" in printed) == lost


@OFFLINE_ONLY
def test_full_disks_below_both_leave_the_exit_code(typed: Typed) -> None:
    lost = typed.code is ExitCode.OK and typed.answers

    assert end(typed, ">/dev/full 2>/dev/full")[0] == (ExitCode.RUN_FAILED if lost else typed.code)


def test_a_reader_who_has_enough_is_not_an_error(typed: Typed) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        done = subprocess.run(
            typed.shell.argv(*typed.words),
            env=typed.shell.environment,
            cwd=typed.shell.folder,
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == typed.code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("encoding", "columns"), [("ascii", "34"), ("cp1252", "80")])
def test_a_pipe_of_another_encoding_gets_what_it_can(
    typed: Typed, encoding: str, columns: str
) -> None:
    ending, printed = end(typed, "", PYTHONIOENCODING=encoding, COLUMNS=columns)

    assert ending == typed.code
    assert "\x1b" not in printed


@pytest.mark.parametrize("columns", [34, 80])
@pytest.mark.parametrize("command", CLUSTER, ids=lambda command: command.words)
def test_a_narrow_terminal_gets_whole_names_and_no_wider_table(
    finished_run: FinishedRun, command: Command, columns: int
) -> None:
    typed = in_cluster(command, finished_run)
    with Terminal(finished_run.served, *typed.words, columns=columns, NO_COLOR="1") as screen:
        assert screen.finish() == typed.code

    assert "Traceback" not in screen.text
    lines = screen.text.splitlines()
    if command.words == "runs":
        assert any(line.startswith(finished_run.name) for line in lines)
    if command.words in TABLES:
        table = [line for line in lines if not line.startswith("note: ")]
        assert max(cell_len(line.rstrip()) for line in table) <= columns, table
