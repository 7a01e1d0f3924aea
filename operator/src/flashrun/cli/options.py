"""Options that many commands share, each described once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """Forms of an answer."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="Namespace of the run; the kubeconfig's own when left out."
    ),
]
Context = Annotated[
    str | None,
    typer.Option("--context", help="Context of the kubeconfig; the current one when left out."),
]
Form = Annotated[Output, typer.Option("--output", "-o", help="Form of the answer.")]


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the runs that may be meant; only a shell that completes a word asks for them."""
    from flashrun.cli import completion

    return completion.runs(ctx.params.get("context"), ctx.params.get("namespace"), incomplete)


Run = Annotated[
    str, typer.Argument(help="Name of the run.", metavar="RUN", autocompletion=complete_run)
]
Config = Annotated[Path, typer.Argument(help="The run's TOML file.", metavar="CONFIG")]
Overlays = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        help="TOML file merged over what came before; repeat it for more.",
        metavar="FILE",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One value, such as train.steps=300; repeat it.", metavar="KEY=VALUE"
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check and print the resolved run; submit nothing.")
]
Background = Annotated[
    bool, typer.Option("--background", help="Submit, print the run's name, and return.")
]
