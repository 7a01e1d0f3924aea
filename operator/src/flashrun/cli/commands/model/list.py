"""``flash model list``: list the models in the platform's mirror."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from flashrun.cli.cluster import mirror
from flashrun.cli.cluster.connection import connect
from flashrun.cli.cluster.mirror import MirroredModel
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table, Tone


def list_mirror(
    output: Output = OutputFormat.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """List the models in the platform's mirror.

    The column CATALOG says whether runs can use a revision: the platform's catalog has to name it.

    Example: flash model list
    """
    found, served = asyncio.run(_list(namespace, context))
    terminal.write_answer(
        output,
        data=[_data(model, served) for model in found],
        names=[f"{model.model}@{model.revision}" for model in found],
        table=_table(found, served, datetime.now(UTC)),
    )


async def _list(
    namespace: str | None, context: str | None
) -> tuple[list[MirroredModel], set[tuple[str, str]]]:
    """Return the models, and id and revision of those that the catalog names."""
    async with connect(context, namespace) as session:
        platform = await session.get_platform()
        catalog = platform.catalog() if platform is not None else ()
        found = await session.with_mirror(mirror.list_models)
        return found, {(model.id, model.revision) for model in catalog}


def _data(model: MirroredModel, served: set[tuple[str, str]]) -> dict[str, Any]:
    return {
        "id": model.model,
        "revision": model.revision,
        "bytes": model.size,
        "complete": model.manifest is not None,
        "pushed": model.manifest and model.manifest.created.isoformat(),
        "catalog": (model.model, model.revision) in served,
    }


def _table(found: list[MirroredModel], served: set[tuple[str, str]], now: datetime) -> Table:
    rows = (
        (
            Cell(model.model),
            Cell(model.revision),
            Cell(formatting.format_size(model.size)),
            Cell(formatting.format_age(model.manifest.created, now))
            if model.manifest
            else Cell("not complete", Tone.BAD),
            Cell("yes" if (model.model, model.revision) in served else "no"),
        )
        for model in found
    )
    return Table(("MODEL", "REVISION", "SIZE", "AGE", "CATALOG"), tuple(rows))
