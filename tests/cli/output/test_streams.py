"""Whatever standard output and error lead to, a command ends with its exit code and a sentence."""

import re
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import pytest
from rich.cells import cell_len

from flashrun.cli.output.failure import ExitCode
from tests.cli.app import COMMANDS
from tests.cli.finished_run import FinishedRun
from tests.cli.following import Terminal
from tests.cli.forked_commands import Redirected, Redirection
from tests.cli.shell import Shell

_numbers = count(1)


class Command(NamedTuple):
    """What is typed, and how it ends."""

    words: str
    code: ExitCode = ExitCode.OK
    in_cluster: bool = True
    answers: bool = True
    """Whether it writes to standard output when all is well."""
    asks: bool = False
    """Whether it asks a person for a confirmation, which nobody gives without a terminal."""
    first: str = ""
    """A command without which it would have nothing to do."""


class Typed(NamedTuple):
    """A command in a shell, which has a run in its cluster if the command needs one."""

    shell: Shell
    words: list[str]
    code: ExitCode
    answers: bool
    anew: bool
    """Whether its process starts anew, and what Python does at its start is tried, too."""


ANYWHERE = [
    Command("--help", in_cluster=False),
    Command("env --help", in_cluster=False),
    Command("train", ExitCode.USAGE, in_cluster=False),
    Command("explain stepz", ExitCode.USAGE, in_cluster=False),
    Command("status UPPER", ExitCode.NOT_FOUND, in_cluster=False),
    Command("models --offline", in_cluster=False),  # with a note on standard error
    Command("train config.toml --dry-run", in_cluster=False),
    Command("version", in_cluster=False),
]
"""Commands that are tried with every kind of stream: below a command all is in the same place."""
TABLES = (
    "runs",
    "models",
    "gpus",
    "metrics RUN",
    "env list",
    "model list",
    "diff RUN OTHER",
    "checkpoints RUN",
    "cost",
    "sweep status",
    "sweep start grid.toml --dry-run",
)
"""Commands that draw a table on a terminal."""
PUSHED = "model push model --id streams/NEW --revision 1"
GONE = "env push env --name your-org/NEW"
TYPED = {
    "train": [
        Command("train config.toml --dry-run --server"),
        Command("train config.toml --background"),
        Command("train config.toml -n nowhere", ExitCode.NOT_FOUND),
    ],
    "rerun": [Command("rerun RUN --background"), Command("rerun RUN --dry-run --server")],
    "render": [Command("render config.toml"), Command("render grid.toml -o json")],
    "sweep start": [
        Command("sweep start grid.toml --dry-run"),
        Command("sweep grid.toml --name NEW"),
        Command("sweep start absent.toml", ExitCode.USAGE),
    ],
    "sweep status": [Command("sweep status", first="sweep grid.toml")],
    "status": [Command("status RUN -f"), Command("status RUN -o json")],
    "log": [Command("log RUN -f")],
    "metrics": [
        Command("metrics RUN"),
        Command("metrics RUN --csv"),
        Command("metrics RUN --json"),
    ],
    "rollouts": [Command("rollouts RUN")],
    "report": [Command("report RUN --out NEW.html")],
    "checkpoints": [Command("checkpoints RUN")],
    "pull": [Command("pull RUN NEW")],
    "export": [
        Command("export RUN --to NEW"),
        Command("export RUN --to NEW --gguf", ExitCode.USAGE),
    ],
    "serve": [Command("serve RUN"), Command("serve RUN --remove", ExitCode.NOT_FOUND)],
    "chat": [Command("chat RUN hello", ExitCode.NOT_FOUND)],  # nothing serves it
    "budget": [Command("budget RUN 20", ExitCode.USAGE)],  # it has ended
    "save": [Command("save RUN", ExitCode.USAGE)],  # it has ended
    "cancel": [Command("cancel RUN")],
    "runs": [Command("runs")],
    "diff": [Command("diff RUN OTHER")],
    "explain": [Command("explain train.epochs")],
    "cost": [Command("cost")],
    "models": [Command("models")],
    "model push": [Command(PUSHED)],
    "model list": [Command("model list")],
    "model delete": [
        Command("model delete streams/NEW --revision 1 --yes", first=PUSHED),
        Command("model delete streams/small --revision 1", ExitCode.USAGE, asks=True),
    ],
    "gpus": [Command("gpus")],
    "env setup": [Command("env setup NEW")],
    "env test": [
        Command("env test NEW", first="env setup NEW"),
        Command("env test absent", ExitCode.USAGE),
    ],
    "env push": [Command(GONE)],
    "env pull": [Command("env pull your-org/your-env NEW")],
    "env list": [Command("env list")],
    "env delete": [
        Command("env delete your-org/NEW --yes", first=GONE),
        Command("env delete your-org/your-env", ExitCode.USAGE, asks=True),
    ],
    "schema": [Command("schema")],
    "doctor": [Command("doctor")],
    "version": [Command("version")],
}
"""Every command, by the words that call it, and what is typed to try it in a cluster."""
CLUSTER = [command for words in COMMANDS for command in TYPED.get(words, ())]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_of_flash_is_tried(words: str) -> None:
    group = words.partition(" ")[0]
    assert TYPED[words], f"add {words} to TYPED"
    assert all(command.words.split()[0] == group for command in TYPED[words])


ANYWHERE_ONLY = pytest.mark.parametrize(
    "typed", ANYWHERE, ids=lambda command: command.words, indirect=True
)
"""What happens below every command in the same place is tried with few of them."""


@pytest.fixture(params=[*ANYWHERE, *CLUSTER], ids=lambda command: command.words)
def typed(request: pytest.FixtureRequest, shell: Shell) -> Typed:
    command: Command = request.param
    if command.in_cluster:
        return in_cluster(command, request.getfixturevalue("finished_run"))
    return Typed(shell, command.words.split(), command.code, command.answers, anew=True)


def in_cluster(command: Command, run: FinishedRun) -> Typed:
    """A command about the run; what it writes has a new name each time."""
    places = {"RUN": run.name, "OTHER": run.other, "NEW": f"new-{next(_numbers)}"}
    first, words = (
        re.sub(r"\b(" + "|".join(places) + r")\b", lambda found: places[found[0]], text).split()
        for text in (command.first, command.words)
    )
    if first:
        done = run.served.flash(*first)
        assert done.returncode == 0, done.stderr
    if command.words == "doctor":  # an operator that is silent for minutes is a failure
        run.served.publish_address(models_namespace=run.served.namespace)
    return Typed(run.served.flash, words, command.code, command.answers, anew=False)


ALL_CLOSED = dict.fromkeys(range(3), Redirection.CLOSED)


def end(typed: Typed, redirected: Redirected, **variables: str) -> tuple[int, str]:
    """Run ``flash`` with streams that lead elsewhere; return exit code and what is left."""
    shell = replace(typed.shell, variables={**typed.shell.variables, **variables})
    run = shell.in_new_process if typed.anew else shell
    done = run(*typed.words, redirected=redirected)
    printed = (done.stdout or "") + (done.stderr or "")
    assert "Traceback" not in printed
    assert "Exception ignored" not in printed
    return done.returncode, printed


def test_closed_streams_change_nothing(typed: Typed) -> None:
    assert end(typed, ALL_CLOSED)[0] == typed.code


@ANYWHERE_ONLY
def test_a_closed_answer_changes_nothing(typed: Typed) -> None:
    assert end(typed, {1: Redirection.CLOSED})[0] == typed.code


@ANYWHERE_ONLY
def test_a_full_disk_below_standard_error_changes_nothing(typed: Typed) -> None:
    assert end(typed, {2: Redirection.FULL})[0] == typed.code


def test_a_full_disk_below_the_answer_is_named(typed: Typed) -> None:
    lost = typed.code is ExitCode.OK and typed.answers
    ending, printed = end(typed, {1: Redirection.FULL})

    assert ending == (ExitCode.RUN_FAILED if lost else typed.code)
    assert ("error: No space left on device\n" in printed) == lost


@ANYWHERE_ONLY
def test_full_disks_below_both_leave_the_exit_code(typed: Typed) -> None:
    lost = typed.code is ExitCode.OK and typed.answers
    full = dict.fromkeys((1, 2), Redirection.FULL)

    assert end(typed, full)[0] == (ExitCode.RUN_FAILED if lost else typed.code)


def test_a_reader_who_has_enough_is_not_an_error(typed: Typed) -> None:
    assert end(typed, {1: Redirection.UNREAD})[0] == typed.code


@pytest.mark.parametrize(("encoding", "columns"), [("ascii", "34"), ("cp1252", "80")])
def test_a_pipe_of_another_encoding_gets_what_it_can(
    typed: Typed, encoding: str, columns: str
) -> None:
    ending, printed = end(typed, {}, PYTHONIOENCODING=encoding, COLUMNS=columns)

    assert ending == typed.code
    assert "\x1b" not in printed


@pytest.mark.parametrize("columns", [34, 80])
@pytest.mark.parametrize(
    "command", [row for row in CLUSTER if not row.asks], ids=lambda command: command.words
)
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
