"""``flash env list``: list the published environments."""

import asyncio
from datetime import UTC, datetime

from flashrun.api.records import EnvironmentPointer
from flashrun.cli.cluster import published_environments
from flashrun.cli.cluster.connection import connect
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table


def list_environments(
    output: Output = OutputFormat.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """List the published environments.

    Example: flash env list
    """
    newest = asyncio.run(_newest_versions(namespace, context))
    terminal.write_answer(
        output,
        data=[
            {"id": identifier, **version.model_dump(mode="json")}
            for identifier, version in newest.items()
        ],
        names=newest,
        table=_table(newest, datetime.now(UTC)),
    )


async def _newest_versions(
    namespace: str | None, context: str | None
) -> dict[str, EnvironmentPointer]:
    async with connect(context, namespace) as session:
        return {
            identifier: await published_environments.newest_version(session, identifier)
            for identifier in await published_environments.identifiers(session)
        }


def _table(newest: dict[str, EnvironmentPointer], now: datetime) -> Table:
    rows = (
        (
            Cell(identifier),
            Cell(version.digest[:12]),
            Cell(formatting.format_size(version.size)),
            Cell(formatting.format_age(version.pushed, now)),
        )
        for identifier, version in newest.items()
    )
    return Table(("ENVIRONMENT", "DIGEST", "SIZE", "AGE"), tuple(rows))
