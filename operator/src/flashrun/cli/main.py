"""The entry of ``flash``, ``flashrun`` and ``kubectl flash``: the commands, and how they fail.

A command's module is imported when the command is called. The list of commands, their help lines
and completion need none of them, so that ``flash --help`` answers at once.
"""

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from flashrun.cli.output import terminal
from flashrun.cli.output.failure import ExitCode, Failure
from flashrun.cli.output.tables import Tone

# Pydantic would look for plugins of its own in everything that is installed.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


_PLAIN: Final[dict[str, Any]] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
"""Help is text: drawing it takes longer than reading it."""


class _Lazy(TyperCommand):
    """A command, or a group of them, that is imported when it is called."""

    def __init__(self, name: str, place: str, line: str) -> None:
        super().__init__(name, help=line, add_help_option=False)
        self.module, _, self._attribute = place.partition(":")

    def load(self) -> Any:
        """Return the command itself."""
        found = getattr(
            importlib.import_module(f"flashrun.cli.commands.{self.module}"), self._attribute
        )
        around = typer.Typer(add_completion=False, **_PLAIN)
        around.callback()(lambda: None)  # so that one command, too, is a command of a group
        if isinstance(found, typer.Typer):
            around.add_typer(found, name=self.name)
        else:
            around.command(self.name)(found)
        command = typer.main.get_group(around).commands[str(self.name)]
        for one in (command, *getattr(command, "commands", {}).values()):
            one.help = terminal.in_user_words(one.help or "")
        return command

    @override
    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        return self.load().make_context(*args, **kwargs)


COMMANDS: Final = (
    _Lazy("train", "train:train", "Train the adapter that a config describes."),
    _Lazy("rerun", "rerun:rerun", "Train again what a run trained, with changes."),
    _Lazy("render", "render:render_manifest", "Print the FlashRun that train would submit."),
    _Lazy("status", "status:status", "Show where a run is, what it saved."),
    _Lazy("log", "log:log", "Print what a run wrote."),
    _Lazy("checkpoints", "checkpoints:checkpoints", "List a run's checkpoints."),
    _Lazy("pull", "pull:pull", "Download an adapter and print the folder that holds it."),
    _Lazy("save", "save:save", "Ask a run for a checkpoint at its next step."),
    _Lazy("cancel", "cancel:cancel", "End a run for good; what it saved is kept."),
    _Lazy("runs", "runs:runs", "List the runs of a namespace, newest first."),
    _Lazy("diff", "diff:diff", "Show in which settings two runs differ."),
    _Lazy("explain", "explain:explain", "Say what a key of the config means."),
    _Lazy("models", "models:models", "List the base models and the GPUs that they would get."),
    _Lazy("gpus", "gpus:gpus", "List the pools of GPUs and what is free in them."),
    _Lazy("env", "env:app", "Make, publish and fetch environments."),
    _Lazy("schema", "schema:schema", "Print the JSON Schema of run configs, for editors."),
    _Lazy("doctor", "doctor:doctor", "Check that this machine can submit runs."),
)


class Commands(TyperGroup):
    """The commands, whose failures end in one sentence and an exit code."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.epilog = terminal.in_user_words(self.epilog or "")
        own = dict(self.commands)
        self.commands.clear()
        for command in (*COMMANDS, *own.values()):
            self.add_command(command)

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as error:
            raise typer.Exit(_told(error)) from None
        except KeyboardInterrupt:
            terminal.say("interrupted", Tone.QUIET)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of a pipe has enough; the interpreter must not complain at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.OK) from None
        except OSError as error:
            # A disk that is full, a folder that may not be written to: nothing of ours to trace.
            place = f"{error.filename}: " if error.filename else ""
            raise typer.Exit(_told(Failure(f"{place}{error.strerror or error}"))) from None
        except Exception as error:
            # A ConfigError is told by what it carries: its module would load every model.
            if (problems := getattr(error, "problems", None)) is None:
                raise
            raise typer.Exit(_told_all(problems)) from None


def _told(error: Failure) -> ExitCode:
    """Say what went wrong; return the exit code for it."""
    terminal.say(f"error: {error.sentence}", Tone.BAD)
    if error.hint:
        terminal.say(f"hint: {error.hint}", Tone.QUIET)
    return error.code


def _told_all(problems: Iterable[object]) -> ExitCode:
    for problem in problems:
        terminal.say(f"error: {problem}", Tone.BAD)
    return ExitCode.USAGE


app = typer.Typer(
    cls=Commands,
    name="flash",
    help="Train LoRA adapters on your own Kubernetes cluster from one short TOML file.",
    epilog=(
        "Start with: flash env setup my-env, then flash train my-env/configs/sft.toml --dry-run. "
        "Exit codes: 0 ok, 1 the run failed, 2 wrong command or config, 3 not found, "
        "130 interrupted."
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    **_PLAIN,
)


@app.command()
def version() -> None:
    """Print the version.

    Example: flash version
    """
    from flashrun import __version__

    terminal.write(f"{terminal.program()} {__version__}")


def _version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    app(prog_name=terminal.program())


if __name__ == "__main__":
    main()
