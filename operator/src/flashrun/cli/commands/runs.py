"""``flash runs``: the runs of a namespace, newest first."""

import asyncio
from datetime import UTC, datetime

from flashrun.cli.cluster.connection import connect
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat


def runs(
    output: Output = OutputFormat.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """List the runs of a namespace, newest first.

    Example: flash runs -n team-a
    """
    asyncio.run(_runs(output, namespace, context))


async def _runs(output: OutputFormat, namespace: str | None, context: str | None) -> None:
    async with connect(context, namespace) as session:
        if output in (OutputFormat.JSON, OutputFormat.YAML):
            terminal.write_data(await session.list_manifests(), output)
            return
        listed = await session.list_runs()
    table = formatting.runs_table(listed, datetime.now(UTC))
    if output is OutputFormat.NAME:
        for row in table.rows:
            terminal.write(row[0].text)
    elif listed:
        terminal.write_table(table)
    else:
        terminal.say(f"no runs in namespace {session.namespace} yet; flash train starts one")
