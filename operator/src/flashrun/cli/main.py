"""The entry of ``flash``, ``flashrun`` and ``kubectl flash``: the commands, and how they fail."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from flashrun import __version__
from flashrun.cli import (
    cancel,
    checkpoints,
    doctor,
    env,
    log,
    manifest,
    models,
    pull,
    runs,
    save,
    schema,
    status,
    terminal,
    train,
)
from flashrun.cli.failure import ExitCode, Failure
from flashrun.cli.render import Tone
from flashrun.spec.compose import ConfigError


class _Commands(TyperGroup):
    """The commands, whose failures end in one sentence and an exit code."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigError, Failure) as error:
            raise typer.Exit(_told(error)) from None
        except KeyboardInterrupt:
            terminal.say("interrupted", Tone.QUIET)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of a pipe has enough; the interpreter must not complain at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.OK) from None


def _told(error: ConfigError | Failure) -> ExitCode:
    """Say what went wrong; return the exit code for it."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            terminal.say(f"error: {problem}", Tone.BAD)
        return ExitCode.USAGE
    terminal.say(f"error: {error.sentence}", Tone.BAD)
    if error.hint:
        terminal.say(f"hint: {error.hint}", Tone.QUIET)
    return error.code


app = typer.Typer(
    cls=_Commands,
    name="flash",
    help="Train LoRA adapters on your own Kubernetes cluster from one short TOML file.",
    epilog=(
        "Start with: flash env setup my-env, then flash train my-env/sft.toml --dry-run. "
        "Exit codes: 0 ok, 1 the run failed, 2 wrong command or config, 3 not found, "
        "130 interrupted."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("train")(train.train)
app.command("render")(manifest.render_manifest)
app.command("status")(status.status)
app.command("log")(log.log)
app.command("checkpoints")(checkpoints.checkpoints)
app.command("pull")(pull.pull)
app.command("cancel")(cancel.cancel)
app.command("save")(save.save)
app.command("runs")(runs.runs)
app.command("models")(models.models)
app.add_typer(env.app, name="env")
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)


@app.command()
def version() -> None:
    """Print the version.

    Example: flash version
    """
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
