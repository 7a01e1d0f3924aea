"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from flashrun.api.names import is_namespace
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.output_format import OutputFormat


def _check_namespace(name: str | None) -> str | None:
    """Return the name; another text would be part of the path of a request.

    An empty one counts as left out, as for kubectl.
    """
    if name and not is_namespace(name):
        raise UsageFailure(
            f"{name!r} is not the name of a namespace", "kubectl get namespaces lists them"
        )
    return name or None


Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        help="Namespace; by default the one of the kubeconfig.",
        callback=_check_namespace,
    ),
]
Context = Annotated[
    str | None,
    typer.Option("--context", help="Context of the kubeconfig; by default the current one."),
]
Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="Format of the answer.")]


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the runs that begin with ``incomplete``, for completion in a shell."""
    from flashrun.cli import completion

    return completion.complete_run_name(
        ctx.params.get("context"), ctx.params.get("namespace"), incomplete
    )


Run = Annotated[
    str, typer.Argument(help="Name of the run.", metavar="RUN", autocompletion=complete_run)
]
Config = Annotated[
    Path,
    typer.Argument(
        help="TOML file that describes the run; - reads standard input.", metavar="CONFIG"
    ),
]
Overlays = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        help="TOML file to merge over the files before it; can be repeated.",
        metavar="FILE",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Value of one key, such as train.steps=300; can be repeated.",
        metavar="KEY=VALUE",
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Follow the run until it has ended.")]
Logs = Annotated[
    bool,
    typer.Option("--logs", help="Print the lines of the log; a terminal gets no live view then."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check and print the resolved run; submit nothing.")
]
Server = Annotated[
    bool, typer.Option("--server", help="With --dry-run: check in the cluster, too.")
]
Background = Annotated[
    bool, typer.Option("--background", help="Submit, print the run's name, and return.")
]
