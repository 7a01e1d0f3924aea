"""Every command in the list has a module, an example, a help text and a place in the docs."""

import inspect
import re
import shlex

import pytest

from tests.cli.app import APP, COMMANDS
from tests.cli.shell import ROOT

OBVIOUS = "--help --output --follow --name"
"""Options that the page does not spell out."""


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
