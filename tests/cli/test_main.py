"""The entry of the command line: how commands are called, how they end, and what they load."""

import json

import pytest
import yaml

from flashrun.cli.output.failure import ExitCode
from tests.cli.app import CLIENTS, COMMAND_MODULES, SLOW, loaded_modules
from tests.cli.shell import Served, Shell


@pytest.mark.parametrize("words", [[], ["env"]])
def test_no_command_is_a_request_for_help(shell: Shell, words: list[str]) -> None:
    done = shell(*words)

    assert done.returncode == 2
    assert "Usage: flash" in done.stdout + done.stderr


def test_help_is_text_without_colour(shell: Shell) -> None:
    assert "\x1b" not in shell("--help").stdout


LOADED = [
    (["--help"], CLIENTS | SLOW | COMMAND_MODULES | {"pydantic"}),
    (["version"], CLIENTS | SLOW | (COMMAND_MODULES - {"flashrun.cli.commands.version"})),
    (["train", "--help"], CLIENTS | SLOW),
    (["train", "config.toml", "--dry-run"], CLIENTS | SLOW),
    (["render", "config.toml"], CLIENTS | (SLOW - {"yaml"})),
    (["explain", "steps"], CLIENTS | SLOW),
    (["schema"], CLIENTS | SLOW),
    (["models", "--offline"], CLIENTS),
]


@pytest.mark.parametrize(
    ("words", "forbidden"), LOADED, ids=[" ".join(words) for words, _ in LOADED]
)
def test_a_command_without_a_cluster_loads_no_client_and_a_quick_one_nothing_slow(
    shell: Shell, words: list[str], forbidden: frozenset[str]
) -> None:
    assert loaded_modules(shell, words) & forbidden == set()


NOWHERE = [
    *(f"{command} flash-1-a" for command in ("status", "log", "checkpoints", "pull", "cancel")),
    *(
        "save flash-1-a",
        "budget flash-1-a 20",
        "runs",
        "gpus",
        "rerun flash-1-a",
        "diff flash-1-a flash-1-b",
    ),
    *("env list", "env pull org/name new", "doctor", "train config.toml"),
]


@pytest.mark.parametrize("words", NOWHERE)
def test_without_a_kubeconfig_a_command_ends_with_2_and_a_sentence(
    shell: Shell, words: str
) -> None:
    done = shell(*words.split())

    assert done.returncode == ExitCode.USAGE
    assert "no kubeconfig was found" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_no_kubeconfig_is_a_sentence(shell: Shell) -> None:
    done = shell("runs")

    assert done.returncode == 2
    assert done.stderr.startswith("error: no kubeconfig was found")


USAGE = [
    ("bogus",),
    ("status",),
    ("train",),
    ("train", "missing.toml"),
    ("train", "."),
    ("train", "config.toml", "-o", "xml"),
    ("log", "x", "--attempt", "0"),
    ("status", "flash-1-a/step-5"),
    ("pull", "../x"),
    ("env", "push", "nowhere"),
    ("env", "push", "."),
    ("env", "pull", "no-slash"),
    ("train", "-", "--config", "-"),
    ("explain", "run_id"),
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_a_wrong_command_ends_with_2_and_no_traceback(shell: Shell, words: tuple[str, ...]) -> None:
    done = shell(*words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


ENDINGS = [
    ("version", ExitCode.OK),
    ("--help", ExitCode.OK),
    ("schema", ExitCode.OK),
    ("models --offline", ExitCode.OK),
    ("explain", ExitCode.OK),
    ("explain steps", ExitCode.OK),
    ("explain stepz", ExitCode.USAGE),
    ("render config.toml", ExitCode.OK),
    ("render missing.toml", ExitCode.USAGE),
    ("train config.toml --dry-run", ExitCode.OK),
    ("train --dry-run config.toml", ExitCode.OK),
    ("train config.toml --set train.stepz=1", ExitCode.USAGE),
    ("train config.toml --dry-run --nonsense", ExitCode.USAGE),
    ("rerun", ExitCode.USAGE),
    ("rerun flash-1-a/step-5", ExitCode.USAGE),
    ("diff flash-1-a", ExitCode.USAGE),
    ("status UPPER", ExitCode.NOT_FOUND),
]


@pytest.mark.parametrize(("words", "code"), ENDINGS)
def test_a_command_ends_with_its_exit_code(shell: Shell, words: str, code: ExitCode) -> None:
    done = shell(*words.split())

    assert done.returncode == code
    assert ("error" in done.stderr.lower()) == (code is not ExitCode.OK)


ENDINGS_IN_A_CLUSTER = [
    ("status RUN", ExitCode.OK),
    ("status RUN -f", ExitCode.OK),
    ("runs", ExitCode.OK),
    ("checkpoints RUN", ExitCode.OK),
    ("diff RUN RUN", ExitCode.OK),
    ("cancel RUN", ExitCode.OK),
    ("models", ExitCode.OK),
    ("gpus", ExitCode.OK),
    ("env list", ExitCode.OK),
    ("rerun RUN --background", ExitCode.OK),
    ("save RUN", ExitCode.USAGE),  # it has ended
    ("budget RUN 20", ExitCode.USAGE),  # it has ended
    ("rerun RUN --set nonsense", ExitCode.USAGE),
    ("status RUN/step-1", ExitCode.USAGE),
    ("log RUN", ExitCode.NOT_FOUND),
    ("log RUN --attempt 3", ExitCode.NOT_FOUND),
    ("pull RUN", ExitCode.NOT_FOUND),
    ("pull RUN/step-1", ExitCode.NOT_FOUND),
    ("diff RUN flash-1-gone", ExitCode.NOT_FOUND),
    ("rerun flash-1-gone", ExitCode.NOT_FOUND),
    ("env pull org/nothing new", ExitCode.NOT_FOUND),
    ("runs --context nowhere", ExitCode.USAGE),
    ("train config.toml -n nowhere", ExitCode.NOT_FOUND),
    ("gpus -n default", ExitCode.RUN_FAILED),
]


def test_every_command_ends_with_its_exit_code_in_a_cluster(served: Served, run: str) -> None:
    for words, code in ENDINGS_IN_A_CLUSTER:
        done = served.flash(*words.replace("RUN", run).split())
        assert done.returncode == code, (words, done)
        assert ("error: " in done.stderr) == (code is not ExitCode.OK), (words, done)


@pytest.mark.parametrize("command", ["status", "log", "checkpoints", "cancel", "save", "pull"])
def test_a_run_that_does_not_exist_ends_with_3(served: Served, command: str) -> None:
    done = served.flash(command, "flash-1-gone")

    assert done.returncode == 3
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


FORMS = [
    *("status RUN", "runs", "checkpoints RUN", "models", "gpus", "diff RUN RUN", "cancel RUN"),
    *("train config.toml --background", "train config.toml --dry-run", "render config.toml"),
    *("rerun RUN --background", "rerun RUN --dry-run", "env list"),
]


def test_every_command_answers_in_every_form(served: Served, run: str) -> None:
    for words in FORMS:
        typed = words.replace("RUN", run).split()
        # A dry run creates no run, so it has no name to print.
        forms = ("json", "yaml") if "--dry-run" in typed else ("json", "yaml", "name")
        told = {form: served.flash(*typed, "-o", form) for form in forms}
        assert {done.returncode for done in told.values()} == {0}, told
        assert type(json.loads(told["json"].stdout)) is type(yaml.safe_load(told["yaml"].stdout))
        assert all("\x1b" not in done.stdout for done in told.values())


def test_a_folder_that_cannot_be_written_to_is_a_sentence(shell: Shell) -> None:
    shell.write("sums", "a file, not a folder")
    done = shell("env", "setup", "sums")

    assert done.returncode == 1
    assert done.stderr == "error: sums: File exists\n"
