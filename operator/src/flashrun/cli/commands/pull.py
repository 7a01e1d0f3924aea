"""``flash pull``: download an adapter, and check every file of it."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from flashrun.api.names import Ref
from flashrun.cli.adapter_refs import parse_with_best
from flashrun.cli.cluster.adapter_download import download_adapter, new_folder
from flashrun.cli.cluster.best_checkpoint import find_best
from flashrun.cli.cluster.connection import connect
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal


def pull(
    ref: Annotated[
        str,
        typer.Argument(
            help="RUN for its final adapter, RUN/step-N for a checkpoint.", metavar="REF"
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(help="New folder; by default named after the reference.", metavar="FOLDER"),
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="The checkpoint with the best score on held-out examples."),
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Download an adapter and print the folder that holds it.

    Example: flash pull flash-1795370000-3fa9c1d2/step-50 my-adapter
    """
    parsed = parse_with_best(ref, best, "pull")
    terminal.write(str(asyncio.run(_pull(parsed, folder, best, namespace, context))))


async def _pull(
    ref: Ref, folder: Path | None, best: bool, namespace: str | None, context: str | None
) -> Path:
    if not best:
        folder = new_folder(ref, folder)
    async with connect(context, namespace) as session:
        if best:
            found = await find_best(session, ref.run)
            ref, folder = found.ref, new_folder(found.ref, folder)
            terminal.say(found.sentence)
        assert folder is not None
        await download_adapter(session, ref, folder)
    return folder
