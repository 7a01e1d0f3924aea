"""``flash runs``: the runs of a namespace, newest first."""

import asyncio
from datetime import UTC, datetime

from flashrun.cli.cluster.connection import connect
from flashrun.cli.options import Context, Form, Namespace, Output
from flashrun.cli.output import formatting, terminal


def runs(output: Form = Output.TABLE, namespace: Namespace = None, context: Context = None) -> None:
    """List the runs of a namespace, newest first.

    Example: flash runs -n team-a
    """
    asyncio.run(_runs(output, namespace, context))


async def _runs(output: Output, namespace: str | None, context: str | None) -> None:
    async with connect(context, namespace) as session:
        if output in (Output.JSON, Output.YAML):
            terminal.write_data(await session.manifests(), output)
            return
        found = await session.runs()
        where = session.namespace
    table = formatting.runs_table(found, datetime.now(UTC))
    if output is Output.NAME:
        for row in table.rows:
            terminal.write(row[0].text)
    elif found:
        terminal.write_table(table)
    else:
        terminal.say(f"no runs in namespace {where} yet; flash train starts one")
