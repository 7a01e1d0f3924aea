"""``flash runs``: the runs of a namespace, newest first."""

import asyncio
import contextlib
from datetime import UTC, datetime

from flashrun.cli.cluster.connection import ClusterSession, connect, readable_runs
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.failure import NotFoundFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cluster_errors import Forbidden


def runs(
    output: Output = OutputFormat.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """List the runs of a namespace, newest first.

    Example: flash runs -n team-a
    """
    asyncio.run(_runs(output, namespace, context))


async def _runs(output: OutputFormat, namespace: str | None, context: str | None) -> None:
    async with connect(context, namespace) as session:
        manifests = await session.list_manifests()
        if not manifests:
            await _refuse_absent_namespace(session)
        if output in (OutputFormat.JSON, OutputFormat.YAML):
            terminal.write_data(manifests, output)
            return
        listed = readable_runs(manifests)
    table = formatting.runs_table(listed, datetime.now(UTC))
    if output is OutputFormat.NAME:
        for row in table.rows:
            terminal.write(row[0].text)
    elif listed:
        terminal.write_table(table)
    else:
        terminal.say(f"no runs in namespace {session.namespace} yet; flash train starts one")


async def _refuse_absent_namespace(session: ClusterSession) -> None:
    """Raise ``NotFoundFailure`` if the namespace does not exist: its list is empty, too."""
    with contextlib.suppress(Forbidden):
        if await session.cluster.find("Namespace", None, session.namespace) is None:
            raise NotFoundFailure(
                f"the namespace {session.namespace} does not exist",
                "kubectl get namespaces lists them; choose one with -n",
            )
