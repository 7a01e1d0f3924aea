"""The entry of ``flash``, ``flashrun`` and ``kubectl flash``: the commands, and how they fail.

A command's module is imported when the command is called. Help and completion read the list of
commands instead, so that ``flash --help`` answers at once.
"""

import gc

# What is imported stays: looking for garbage in it takes a tenth of the time of a short command.
# It is set here, as a program that imports the Python client keeps its own setting.
gc.set_threshold(100_000, 20, 20)

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from flashrun.cli.command_list import COMMANDS, CommandEntry
from flashrun.cli.config.problems import ConfigError
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import ExitCode, Failure
from flashrun.cli.output.streams import discard, prepare_streams
from flashrun.cli.output.tables import Tone

# Pydantic would search every installed package for plugins, which takes time.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

_PACKAGE: Final = "flashrun.cli.commands"
_PLAIN_HELP: Final[dict[str, Any]] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
"""Help is plain text: importing what draws it takes longer than everything else."""


class LazyCommand(TyperCommand):
    """A command that is imported when it is called."""

    def __init__(self, entry: CommandEntry, package: str) -> None:
        super().__init__(entry.name, help=entry.summary, add_help_option=False)
        self.module = f"{package}.{entry.name}"
        self._function = entry.function or entry.name

    def import_command(self) -> Any:
        """Import the command and return it."""
        function = getattr(importlib.import_module(self.module), self._function)
        group = typer.Typer(add_completion=False, **_PLAIN_HELP)
        group.callback()(lambda: None)  # makes a group of it, although it has one command only
        group.command(self.name)(function)
        command = typer.main.get_group(group).commands[str(self.name)]
        command.help = terminal.as_typed(command.help or "")
        return command

    @override
    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return self.import_command().make_context(*args, **kwargs)


class SubcommandGroup(TyperGroup):
    """Commands of one subject; a group may have one that is meant when none is named."""

    def __init__(self, entry: CommandEntry, package: str) -> None:
        super().__init__(
            name=entry.name,
            help=entry.summary,
            commands=[_command(inner, f"{package}.{entry.name}") for inner in entry.subcommands],
            rich_markup_mode=None,
            no_args_is_help=True,
        )
        self._default = entry.default
        if entry.default:
            short = f"{terminal.program()} {entry.name}"
            self.epilog = f"{short} … is short for {short} {entry.default} …"

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        if self._default and args and not named:
            args = [self._default, *args]
        return super().parse_args(ctx, args)


def _command(entry: CommandEntry, package: str) -> LazyCommand | TyperGroup:
    if not entry.subcommands:
        return LazyCommand(entry, package)
    return SubcommandGroup(entry, package)


class CommandGroup(TyperGroup):
    """All commands; a failure ends in one sentence and an exit code."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.epilog = terminal.as_typed(self.epilog or "")
        for entry in COMMANDS:
            self.add_command(_command(entry, _PACKAGE))

    @override
    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _failures_as_exits():  # of printing the help
            return super().make_context(*args, **kwargs)

    @override
    def invoke(self, ctx: Any) -> Any:
        with _failures_as_exits():
            return super().invoke(ctx)


@contextlib.contextmanager
def _failures_as_exits() -> Iterator[None]:
    """Print what goes wrong in one sentence, and end with its exit code."""
    try:
        yield
    except Failure as error:
        raise typer.Exit(_report(error)) from None
    except ConfigError as error:
        for problem in error.problems:
            terminal.say(f"error: {problem}", Tone.BAD)
        raise typer.Exit(ExitCode.USAGE) from None
    except KeyboardInterrupt:
        terminal.say("interrupted", Tone.QUIET)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of a pipe has enough.
        discard(sys.stdout)
        raise typer.Exit(ExitCode.OK) from None
    except OSError as error:
        # A full disk or a read-only folder is the user's to solve: a traceback would not help.
        if not error.filename:
            discard(sys.stdout)
        place = f"{error.filename}: " if error.filename else ""
        raise typer.Exit(_report(Failure(f"{place}{error.strerror or error}"))) from None


def _report(error: Failure) -> ExitCode:
    """Print what went wrong; return the exit code for it."""
    try:
        terminal.say(f"error: {error.sentence}", Tone.BAD)
        if error.hint:
            terminal.say(f"hint: {error.hint}", Tone.QUIET)
    except BrokenPipeError:
        discard(sys.stderr)
    return error.code


app = typer.Typer(
    cls=CommandGroup,
    name="flash",
    help="Train LoRA adapters on your own Kubernetes cluster from one short TOML file.",
    epilog=(
        "Start with: flash env setup my-env, then flash train my-env/configs/sft.toml --dry-run. "
        "Exit codes: 0 ok, 1 the run failed, 2 wrong command or config, 3 not found, "
        "130 interrupted."
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    **_PLAIN_HELP,
)


def _print_version(asked: bool) -> None:
    if asked:
        from flashrun.cli.commands.version import version

        version()
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    prepare_streams()
    try:
        app(prog_name=terminal.program())
    except OSError:  # a wrong command whose message cannot be printed
        discard(sys.stderr)
        sys.exit(ExitCode.USAGE)
    finally:
        gc.freeze()  # the end of the program would look for garbage again


if __name__ == "__main__":
    main()
