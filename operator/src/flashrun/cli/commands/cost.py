"""``flash cost``: the GPU hours that runs have used, also of runs that were deleted."""

import asyncio
import contextlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final

import typer

from flashrun.api import names
from flashrun.cli.cluster import usage
from flashrun.cli.cluster.connection import ClusterSession, connect
from flashrun.cli.cluster.usage import RunUsage
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure, UsageFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table
from flashrun.cluster_errors import Forbidden

_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class CostGroup(StrEnum):
    """What GPU time is added up by."""

    RUN = "run"
    NAMESPACE = "namespace"
    USER = "user"
    MODEL = "model"


def cost(
    by: Annotated[
        CostGroup,
        typer.Option("--by", help="run, user or model; namespace: of all that you may read."),
    ] = CostGroup.RUN,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Only time after this: 12h, 7d, 4w or 2026-11-01."),
    ] = None,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show the GPU hours that runs have used.

    They are the time for which pods held GPUs, from the records in storage: runs whose FlashRun was
    deleted count, too. COST is GPU hours times the relative cost of the pool, where the platform
    still has the pool. The user of a run is known if it was submitted by flash.

    Example: flash cost --by user --since 7d
    """
    begin = _time(since, datetime.now(UTC)) if since is not None else None
    asyncio.run(_cost(by, begin, output, namespace, context))


async def _cost(
    by: CostGroup,
    since: datetime | None,
    output: OutputFormat,
    namespace: str | None,
    context: str | None,
) -> None:
    now = datetime.now(UTC)
    async with connect(context, namespace) as session:
        platform = await session.get_platform()
        prices = {pool.name: pool.cost for pool in platform.pools} if platform else {}
        if by is CostGroup.NAMESPACE:
            used = await _all_namespaces(session, context, now, since)
        else:
            used = await usage.read_usage(session, now, since)
    _print_cost(by, used, prices, output)


async def _all_namespaces(
    session: ClusterSession, context: str | None, now: datetime, since: datetime | None
) -> list[RunUsage]:
    """Return the usage in every served namespace that the user may read; say which are left out."""
    try:
        listed = [str(item["metadata"]["name"]) for item in await session.cluster.list("Namespace")]
    except Forbidden:
        listed = [session.namespace]
        terminal.say(f"note: only the runs in namespace {session.namespace} can be seen from here")
    used: list[RunUsage] = []
    for name in listed:
        served = None
        with contextlib.suppress(Forbidden):
            served = await session.cluster.find("ConfigMap", name, names.PUBLIC_CONFIG_MAP)
        if served is None:
            continue
        try:
            async with connect(context, name) as other:
                used += await usage.read_usage(other, now, since)
        except Failure as error:
            terminal.say(f"note: namespace {name} is left out: {error.sentence}")
    return used


def _print_cost(
    by: CostGroup, used: Iterable[RunUsage], prices: Mapping[str, float], output: OutputFormat
) -> None:
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for item in used:
        key = getattr(item, "name" if by is CostGroup.RUN else str(by)) or "unknown"
        for pool, own in item.seconds.items():
            seconds[key][pool] += own
    ordered = sorted(seconds.items(), key=lambda entry: (-sum(entry[1].values()), entry[0]))
    rows = [
        {
            str(by): key,
            "gpu_hours": round(sum(pools.values()) / 3600, 4),
            "cost": _relative_cost(pools, prices),
            "pools": {pool: round(own / 3600, 4) for pool, own in pools.items()},
        }
        for key, pools in ordered
    ]
    if not rows and output is OutputFormat.TABLE:
        terminal.say("no run has used a GPU in that time")
        return
    terminal.write_answer(
        output,
        data=rows,
        names=seconds,
        table=Table(
            (str(by).upper(), "GPU HOURS", "COST", "POOLS"),
            tuple(
                (
                    Cell(str(row[str(by)])),
                    Cell(f"{row['gpu_hours']:.2f}"),
                    Cell("" if row["cost"] is None else f"{row['cost']:.2f}"),
                    Cell(", ".join(pool or "unknown" for pool in pools)),
                )
                for row, (_, pools) in zip(rows, ordered, strict=True)
            ),
        ),
    )


def _relative_cost(pools: Mapping[str, float], prices: Mapping[str, float]) -> float | None:
    """Return GPU hours times prices; None when the platform no longer has one of the pools."""
    if not pools.keys() <= prices.keys():
        return None
    return round(sum(own / 3600 * prices[pool] for pool, own in pools.items()), 4)


def _time(text: str, now: datetime) -> datetime:
    """Read a length of time before ``now``, or a date or time; raises ``UsageFailure``."""
    if match := re.fullmatch(r"([0-9]{1,5})([hdw])", text):
        return now - int(match[1]) * _UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageFailure(
            f"--since {text} is not a time", "write 12h, 7d, 4w or a date such as 2026-11-01"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
