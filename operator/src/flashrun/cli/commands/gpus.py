"""``flash gpus``: the pools of GPUs, and how many GPUs are free."""

import asyncio
from collections.abc import Sequence

from flashrun.api import names
from flashrun.api.public import PublicPlatform, PublicPool
from flashrun.cli.cluster.connection import connect
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table, Tone


def gpus(
    output: Output = OutputFormat.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """List the pools of GPUs and how many GPUs are free.

    COST is relative: a run gets the cheapest pool that it fits in. FREE is the number of GPUs that
    no pod has requested, as the platform counted them up to a minute ago.

    Example: flash gpus
    """
    pools = sorted(asyncio.run(_pools(namespace, context)), key=lambda pool: (pool.cost, pool.name))
    if uncounted := [pool.name for pool in pools if pool.total is None or pool.free is None]:
        terminal.say(
            f"note: the GPUs of {', '.join(uncounted)} are not counted, as the platform may not "
            "read nodes and pods: its administrator can allow it"
        )
    terminal.write_answer(
        output,
        data=[pool.model_dump(mode="json", by_alias=True) for pool in pools],
        names=[pool.name for pool in pools],
        table=pools_table(pools),
    )


async def _pools(namespace: str | None, context: str | None) -> Sequence[PublicPool]:
    async with connect(context, namespace) as session:
        platform: PublicPlatform | None = await session.get_platform()
        if platform is None:
            raise Failure(
                f"ConfigMap {names.PUBLIC_CONFIG_MAP} cannot be read in namespace "
                f"{session.namespace}, so the pools are not known",
                "the operator creates it in each namespace that it serves: choose one with -n; "
                "flash doctor checks more",
            )
        return platform.pools


def pools_table(pools: Sequence[PublicPool]) -> Table:
    """Return the pools as a table; a question mark stands for GPUs that are not counted."""
    return Table(
        ("POOL", "GPU GIB", "GPUS PER NODE", "TOTAL", "FREE", "COST"),
        tuple(
            (
                Cell(pool.name),
                Cell(f"{pool.vram:g}"),
                Cell(str(pool.gpus_per_node)),
                Cell("?" if pool.total is None else str(pool.total)),
                _free_cell(pool.free),
                Cell(f"{pool.cost:g}"),
            )
            for pool in pools
        ),
    )


def _free_cell(count: int | None) -> Cell:
    if count is None:
        return Cell("?", Tone.QUIET)
    return Cell(str(count), Tone.GOOD if count else Tone.BAD)
