"""Every command: its help, its example, how it ends, what it loads; without a cluster."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from flashrun.cli import main
from flashrun.cli.output.failure import ExitCode
from tests.cli.conftest import ROOT, Shell


def leaves(command: Any, *words: str) -> Iterator[tuple[str, Any]]:
    """Yield every command of a group with the words that call it."""
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from leaves(inner, *words, name)
        else:
            yield " ".join((*words, name)), inner


APP: Any = main.typer.main.get_command(main.app)
COMMANDS = dict(leaves(APP))
"""Every command by the words that call it."""
OBVIOUS = "--help --output --follow --name"
"""Options that the page does not spell out."""


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_an_example_that_it_understands(words: str) -> None:
    text = " ".join((inspect.getdoc(COMMANDS[words].import_command().callback) or "").split())
    example = re.search(r"Example: flash (.+)$", text)
    assert example is not None
    typed = shlex.split(re.split(r" [|>] ", example[1])[0])
    assert " ".join(typed).startswith(words)

    context = APP.make_context("flash", typed)  # raises what typing it would print
    while hasattr(context.command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, arguments = context.command.resolve_command(context, rest)
        context = command.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("words", COMMANDS)
def test_the_list_of_commands_agrees_with_the_help_of_each(words: str) -> None:
    command = COMMANDS[words]

    assert (command.import_command().help or "").startswith(command.help.rstrip("."))
    assert len(command.help) <= 60  # longer ones would be cut at 80 columns


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_a_module_with_its_name(words: str) -> None:
    assert COMMANDS[words].module == f"flashrun.cli.commands.{words.replace(' ', '.')}"


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_explained(words: str) -> None:
    for parameter in COMMANDS[words].import_command().params:
        assert parameter.help, parameter.name


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_and_option_of_ours_is_documented(words: str) -> None:
    page = "".join((ROOT / "docs" / name).read_text() for name in ("cli.md", "environments.md"))

    assert f"`flash {words}" in page
    for parameter in COMMANDS[words].import_command().params:
        for option in parameter.opts:
            assert not option.startswith("--") or option in page + OBVIOUS, option


@pytest.mark.parametrize("words", [[], ["env"]])
def test_no_command_is_a_request_for_help(shell: Shell, words: list[str]) -> None:
    done = shell(*words)

    assert done.returncode == 2
    assert "Usage: flash" in done.stdout + done.stderr


def test_help_is_text_without_colour(shell: Shell) -> None:
    assert "\x1b" not in shell("--help").stdout


# --- what a command loads -----------------------------------------------------------------------

CLIENTS = frozenset({"kubernetes", "kopf", "minio", "torch", "transformers", "aiohttp"})
SLOW = frozenset({"rich", "yaml", "packaging", "asyncio"})
"""What takes longer to load than a quick command may take."""
ANY = frozenset(command.module for command in COMMANDS.values())
"""The modules of the commands."""

LOADED = [
    (["--help"], CLIENTS | SLOW | ANY | {"pydantic"}),
    (["version"], CLIENTS | SLOW | (ANY - {"flashrun.cli.commands.version"})),
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
    assert loaded(shell, words) & forbidden == set()


def loaded(shell: Shell, words: list[str], **variables: str) -> set[str]:
    """Return the modules that are loaded when a command has ended."""
    script = (
        "import atexit, sys\n"
        "told = lambda: print(*sys.modules, file=sys.stderr)\n"
        "atexit.register(told)\n"
        f"sys.argv = ['flash', *{words!r}]\n"
        "from flashrun.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**shell.environment, **variables},
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())


# --- how a command ends -------------------------------------------------------------------------

NOWHERE = [
    *(f"{command} flash-1-a" for command in ("status", "log", "checkpoints", "pull", "cancel")),
    *("save flash-1-a", "runs", "gpus", "rerun flash-1-a", "diff flash-1-a flash-1-b"),
    *("env list", "env pull org/name new", "doctor", "train config.toml"),
]


@pytest.mark.parametrize("words", NOWHERE)
def test_without_a_kubeconfig_a_command_ends_with_2_and_a_sentence(
    shell: Shell, words: str
) -> None:
    done = shell(*words.split())

    assert done.returncode == ExitCode.USAGE
    assert "there is no kubeconfig" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


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
def test_a_command_ends_as_scripts_rely_on(shell: Shell, words: str, code: ExitCode) -> None:
    done = shell(*words.split())

    assert done.returncode == code
    assert ("error" in done.stderr.lower()) == (code is not ExitCode.OK)


# --- completion ---------------------------------------------------------------------------------


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
        ("flash re", {"rerun", "render"}),
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

    assert loaded(shell, [], **variables) & (CLIENTS | SLOW | ANY) == set()


def test_completion_can_be_installed(shell: Shell) -> None:
    assert "--install-completion" in shell("--help").stdout


# --- explain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["train.max_length", "max_length", "max-length", "MAX_LENGTH"])
def test_a_key_may_be_named_in_full_or_in_short(shell: Shell, word: str) -> None:
    assert (
        shell("explain", word).stdout
        == """\
Key:         train.max_length
Meaning:     Longest sequence in tokens, prompt and completion together.
Type:        integer; at least 1, at most 10,000,000
Used by:     sft and grpo
Left out:    1024 (2048 with thinking) for sft, 2368 (3584 with thinking) for grpo
Example:     max_length = 4096
"""
    )


MISTAKES = [
    ("stepz", "did you mean train.steps?"),
    ("train.lora_rang", "did you mean train.lora_rank?"),
    ("zzzzzz", "flash explain lists all keys"),
]


@pytest.mark.parametrize(("word", "hint"), MISTAKES)
def test_a_key_that_is_none_gets_the_nearest_one(shell: Shell, word: str, hint: str) -> None:
    done = shell("explain", word)

    assert done.returncode == 2
    assert hint in done.stderr


def test_the_name_that_another_tool_uses_is_understood(shell: Shell) -> None:
    assert shell("explain", "num_generations", "-o", "name").stdout == "train.group_size\n"


def test_a_table_lists_its_keys(shell: Shell) -> None:
    names = shell("explain", "environment", "-o", "name").stdout.split()

    assert names == [f"environment.{key}" for key in ("id", "params", "pip", "secrets")]


def test_every_key_has_a_meaning_and_a_type(shell: Shell) -> None:
    listed = json.loads(shell("explain", "-o", "json").stdout)
    by_name = {key["name"]: key for key in listed}

    assert all(key["meaning"] and key["type"] and key["used_by"] for key in listed)
    assert by_name["train.learning_rate"]["default"] == {"sft": 1e-4, "grpo": 1e-5}
    assert by_name["train.epochs"]["used_by"] == ["sft"]
    assert [name for name, key in by_name.items() if key["required"]] == ["model", "environment.id"]
    assert yaml.safe_load(shell("explain", "-o", "yaml").stdout) == listed
