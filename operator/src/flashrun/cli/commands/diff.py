"""``flash diff``: in which settings two runs differ, the platform's choices included."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from flashrun.api.config import Algorithm
from flashrun.api.resource import FlashRun, ResolvedStatus
from flashrun.cli.cluster import deleted_runs
from flashrun.cli.cluster.connection import connect, run_name
from flashrun.cli.commands.rerun import config_of, foreign_secrets
from flashrun.cli.config.show_config import toml_value
from flashrun.cli.options import Context, Form, Namespace, Output, complete_run
from flashrun.cli.output import terminal
from flashrun.cli.output.tables import Cell, Table
from flashrun.plan.resolve import resolve_train

First = Annotated[
    str, typer.Argument(help="Name of a run.", metavar="A", autocompletion=complete_run)
]
Second = Annotated[
    str, typer.Argument(help="Name of the other run.", metavar="B", autocompletion=complete_run)
]


def diff(
    first: First,
    second: Second,
    output: Form = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show in which settings two runs differ.

    Compared are the resolved specs: what was given, the recipe's values for what was not, and what
    the platform chose (platform.…: pool, GPUs, image, package of the environment, revision of the
    model). Ends with 0 whenever both runs exist, also when they differ.

    Example: flash diff flash-1795370000-3fa9c1d2 flash-1795380000-77b0e4aa
    """
    asyncio.run(_diff(run_name(first), run_name(second), output, namespace, context))


async def _diff(
    first: str, second: str, output: Output, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        runs = [await deleted_runs.find(session, first), await deleted_runs.find(session, second)]
    for run in runs:
        if run.status.resolved is None:
            terminal.say(f"note: the platform has chosen nothing for {run.name} yet")
    found = differences(*map(flat, runs))
    if not found:
        terminal.say(f"{first} and {second} have the same settings")
    if found or output is not Output.TABLE:
        terminal.write_answer(
            output,
            data={
                "runs": [first, second],
                "differences": [
                    {"key": key, "values": list(values)} for key, values in found.items()
                ],
            },
            names=found,
            table=Table(
                ("KEY", first, second),
                tuple((Cell(key), *map(_cell, values)) for key, values in found.items()),
            ),
        )


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose values differ with both values; None where a side has none."""
    keys = dict.fromkeys((*first, *second))
    pairs = {key: (first.get(key), second.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def flat(run: FlashRun) -> dict[str, Any]:
    """Return every setting of a run under its full name."""
    given = config_of(run)
    tables = {
        "model": run.spec.model,
        "algorithm": str(run.spec.algorithm),
        "thinking": run.spec.thinking,
        "environment": given["environment"],
        "train": _train(run),
        "worker_env": given.get("worker_env", {}),
        "wandb": given.get("wandb", {}),
        "secret_refs": list(foreign_secrets(run)) or None,
        "platform": _platform(run.status.resolved),
    }
    return {key: value for key, value in _flat(tables, "") if value is not None}


def _train(run: FlashRun) -> dict[str, Any]:
    """Return every knob that the run's algorithm has, with the rank that its adapter brought."""
    start = run.spec.train.init_from_adapter
    knobs = resolve_train(run.spec).model_dump(mode="json", exclude_none=True)
    unused = {"max_steps"} if run.spec.algorithm is Algorithm.GRPO else {"stop_sequences"}
    told = run.status.resolved.train if run.status.resolved else {}
    if start:
        knobs |= {key: int(told[key]) for key in ("lora_rank", "lora_alpha") if key in told}
    used = {key: value for key, value in knobs.items() if key not in unused}
    return {**used, "init_from_adapter": start}


def _platform(resolved: ResolvedStatus | None) -> dict[str, Any]:
    """Return what the platform chose; the knobs of training are compared as numbers elsewhere."""
    if resolved is None:
        return {}
    return resolved.model_dump(mode="json", exclude={"train", "ignored_keys", "batching"})


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for key, item in value.items():
        yield from _flat(item, f"{path}.{key}" if path else key)


def _cell(value: Any) -> Cell:
    return Cell("" if value is None else toml_value(value))
