"""`python -m localcluster`: the commands behind `make up`, `make demo` and `make down`."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from localcluster import demo, folders, image_recipe, images, lifecycle
from localcluster.cluster_kind import ClusterKind
from localcluster.steps import FatalError, StepRunner, disk_full

app = typer.Typer(
    help="A Kubernetes cluster for a machine that has none, and the demo that runs on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def up() -> None:
    """Start a cluster, S3 storage and an image registry, as far as they do not run yet."""

    def task(steps: StepRunner) -> None:
        local = lifecycle.up(steps)
        steps.say(f"export KUBECONFIG={local.kubeconfig}")

    _run("up", task)


@app.command()
def down() -> None:
    """Remove everything that was started; the cache of programs and layers stays."""
    _run("down", lifecycle.down)


@app.command()
def clean() -> None:
    """Remove everything that was started and everything that was built."""
    _run("clean", lifecycle.clean)


@app.command(name="images")
def build_images() -> None:
    """Build the operator and the trainer image and push them to the cluster's registry."""

    def task(steps: StepRunner) -> None:
        image_recipe.check_recipe()
        with lifecycle.exclusive_command():
            local = lifecycle.image_target(lambda: lifecycle.up(steps))
            built = images.build(local, steps)
            if local.kind is not ClusterKind.CURRENT:
                lifecycle.delete_unused_images([built.operator, built.trainer], steps)
        steps.say(f"operator: {built.operator}")
        steps.say(f"trainer: {built.trainer}")

    _run("images", task)


@app.command()
def sbom() -> None:
    """Write the lists of packages of both images that were built last into sbom/."""

    def task(steps: StepRunner) -> None:
        folder = folders.repository() / "sbom"
        for name in images.DOCKERFILES:
            local = lifecycle.image_target(lifecycle.existing_cluster)
            text = images.read_sbom(local, name, steps)
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.cdx.json").write_text(text)
            steps.say(f"sbom/{name}.cdx.json")

    _run("sbom", task)


@app.command(name="demo")
def whole_demo(
    model: Annotated[
        demo.DemoModel, typer.Option(help="What is trained.")
    ] = demo.DemoModel.SMOLLM2,
) -> None:
    """Start everything, install the chart, train two adapters and print where they are."""

    def task(steps: StepRunner) -> None:
        image_recipe.check_recipe()
        demo.run(steps, model)

    _run("demo", task)


@app.command()
def status() -> None:
    """Print what runs."""
    _run("status", lifecycle.status, show_log=False)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,  # a later `--` belongs to kubectl
    }
)
def kubectl(context: typer.Context) -> None:
    """Run kubectl against the running cluster."""

    def task(steps: StepRunner) -> None:
        argv = lifecycle.kubectl(context.args, steps)
        os.execv(argv[0], argv)

    _run("kubectl", task, show_log=False)


def _run(command: str, task: Callable[[StepRunner], None], *, show_log: bool = True) -> None:
    """Run one command; print any failure as one sentence and exit with its code."""
    try:
        steps = (
            StepRunner.named(command) if show_log else StepRunner(folders.logs() / f"{command}.log")
        )
        with closing(steps):
            if show_log:
                steps.say(f"log: {steps.log}")
            task(steps)
    except FatalError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail(
            "interrupted; finished steps are kept: run the same command to continue, or "
            "`make down` to remove everything",
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
