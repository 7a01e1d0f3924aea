"""``flash metrics``: the metrics of a run, of training and of evaluation."""

import asyncio
import csv
import io
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from flashrun.cli.cluster.connection import check_run_name, connect
from flashrun.cli.cluster.metrics_history import MetricsTable, read_metrics
from flashrun.cli.options import Context, Namespace, Run
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.tables import Cell, Table


class MetricsForm(StrEnum):
    """How the metrics are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def metrics(
    run: Run,
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            help="Metrics, such as reward or 'eval/*'; by default all, in short.",
            metavar="[KEY]...",
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON list with one row per step.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the metrics of a run.

    With KEY, one row per step; without, one row per metric with its last, lowest and highest value.
    --csv and --json have all steps.

    Example: flash metrics flash-1795370000-3fa9c1d2 reward 'eval/*' --csv
    """
    if as_csv and as_json:
        raise UsageFailure("--csv and --json exclude each other", "use one of them")
    name = check_run_name(run)
    steps, chosen = asyncio.run(_read(name, keys, namespace, context))
    if as_csv:
        _write_csv(steps, chosen)
    elif as_json:
        terminal.write(json.dumps(_as_data(steps, chosen), ensure_ascii=False, indent=1))
    else:
        terminal.write_table(steps_table(steps, chosen) if keys else summary_table(steps, chosen))


async def _read(
    name: str, keys: list[str] | None, namespace: str | None, context: str | None
) -> MetricsTable:
    async with connect(context, namespace) as session:
        return await read_metrics(session, name, keys)


def summary_table(steps: Mapping[int, Mapping[str, float]], keys: Sequence[str]) -> Table:
    """Return the last, the lowest and the highest value of each metric."""
    rows = []
    for key in keys:
        values = [row[key] for row in steps.values() if key in row]
        numbers = (values[-1], min(values), max(values))
        rows.append(
            (Cell(key), *(Cell(_text(number)) for number in numbers), Cell(str(len(values))))
        )
    return Table(("METRIC", "LAST", "LOWEST", "HIGHEST", "STEPS"), tuple(rows))


def steps_table(steps: Mapping[int, Mapping[str, float]], keys: Sequence[str]) -> Table:
    """Return the values of each step that has one of the keys."""
    rows = (
        (Cell(str(step)), *(Cell(_text(row.get(key))) for key in keys))
        for step, row in steps.items()
        if row.keys() & set(keys)
    )
    return Table(("STEP", *keys), tuple(rows))


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _as_data(steps: Mapping[int, Mapping[str, float]], keys: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"step": step, **{key: row[key] for key in keys if key in row}}
        for step, row in steps.items()
        if row.keys() & set(keys)
    ]


def _write_csv(steps: Mapping[int, Mapping[str, float]], keys: Sequence[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("step", *keys))
    for step, row in steps.items():
        if row.keys() & set(keys):
            writer.writerow((step, *(row.get(key, "") for key in keys)))
    terminal.write(text.getvalue().rstrip("\n"))
