"""`python -m localcluster …`: the commands behind `make up`, `make demo` and `make down`."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from localcluster import demo, folders, images, lifecycle
from localcluster.steps import FatalError, StepRunner, disk_full

app = typer.Typer(
    help="A Kubernetes cluster for a machine that has none, and the demo that runs on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def up() -> None:
    """Start a cluster, S3 storage and an image registry; what runs already stays as it is."""

    def story(steps: StepRunner) -> None:
        local = lifecycle.up(steps)
        steps.say(f"export KUBECONFIG={local.kubeconfig}")

    _tell("up", story)


@app.command()
def down() -> None:
    """Remove everything that was started; the cache of built programs and layers stays."""
    _tell("down", lifecycle.down)


@app.command()
def clean() -> None:
    """Remove everything that was started and everything that was built."""
    _tell("clean", lifecycle.clean)


@app.command(name="images")
def build_images() -> None:
    """Build the operator and the trainer image and push them to the cluster's registry."""

    def story(steps: StepRunner) -> None:
        with lifecycle.exclusive_command():
            built = images.build(lifecycle.up(steps), steps)
            lifecycle.delete_unused_images([built.operator, built.trainer], steps)
        steps.say(f"operator: {built.operator}")
        steps.say(f"trainer: {built.trainer}")

    _tell("images", story)


@app.command(name="demo")
def whole_demo() -> None:
    """Start everything, install the chart, train two adapters, say where they are."""
    _tell("demo", demo.run)


@app.command()
def status() -> None:
    """Say what runs."""
    _tell("status", lifecycle.status, show_log=False)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,  # a later `--` is kubectl's
    }
)
def kubectl(context: typer.Context) -> None:
    """Run kubectl against the cluster that is up."""

    def story(steps: StepRunner) -> None:
        argv = lifecycle.kubectl(context.args, steps)
        os.execv(argv[0], argv)

    _tell("kubectl", story, show_log=False)


def _tell(command: str, story: Callable[[StepRunner], None], *, show_log: bool = True) -> None:
    """Run one command; whatever goes wrong ends in one sentence, with the log beside it."""
    try:
        steps = (
            StepRunner.named(command) if show_log else StepRunner(folders.logs() / f"{command}.log")
        )
        if show_log:
            steps.say(f"log: {steps.log}")
        story(steps)
    except FatalError as stop:
        _fail(str(stop), 1)
    except KeyboardInterrupt:
        _fail(
            "interrupted; what was finished is kept: run the same command to go on, or "
            "`make down` to remove what was started",
            130,
        )
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _fail(str(disk_full(Path(error.filename) if error.filename else None)), 1)


def _fail(sentence: str, code: int) -> None:
    sys.stderr.write(f"stopped: {sentence}\n")
    sys.exit(code)


if __name__ == "__main__":
    app(prog_name="python -m localcluster")
