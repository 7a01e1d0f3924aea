"""``flash runs``: the runs of a namespace, newest first."""

import asyncio
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.connection import connect, listed_run
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat


class RunOrder(StrEnum):
    """Orders of the list of runs."""

    AGE = "age"
    SCORE = "score"


def runs(
    sort: Annotated[
        RunOrder,
        typer.Option("--sort", help="age: newest first; score: best on held-out examples first."),
    ] = RunOrder.AGE,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List the runs of a namespace, newest first.

    The last column is the score of the best checkpoint on held-out examples.

    Example: flash runs -n team-a --sort score
    """
    asyncio.run(_runs(sort, output, namespace, context))


async def _runs(
    sort: RunOrder, output: OutputFormat, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        manifests = await session.list_manifests()
        if not manifests:
            await session.refuse_absent_namespace()
        in_order = formatting.best_first if sort is RunOrder.SCORE else formatting.newest_first
        listed = in_order(map(listed_run, manifests))
        if output in (OutputFormat.JSON, OutputFormat.YAML):
            terminal.write_data(_sorted_manifests(manifests, listed), output)
            return
    table = formatting.runs_table(listed, datetime.now(UTC))
    if output is OutputFormat.NAME:
        for row in table.rows:
            terminal.write(row[0].text)
    elif listed:
        terminal.write_table(table)
    else:
        terminal.say(f"no runs in namespace {session.namespace} yet; flash train starts one")


def _sorted_manifests(
    manifests: list[dict[str, Any]], ordered: list[FlashRun]
) -> list[dict[str, Any]]:
    """Return the objects in the order of the runs."""
    places = {run.name: place for place, run in enumerate(ordered)}
    return sorted(manifests, key=lambda item: places[item["metadata"]["name"]])
