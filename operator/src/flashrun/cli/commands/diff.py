"""``flash diff``: the settings in which two runs differ, with the platform's choices."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from flashrun.api.config import EvalConfig
from flashrun.api.resource import FlashRun, ResolvedStatus
from flashrun.cli.cluster import deleted_runs
from flashrun.cli.cluster.connection import check_run_name, connect
from flashrun.cli.config.run_spec import config_tables, flatten_tables, given_secrets
from flashrun.cli.config.toml_text import toml_value
from flashrun.cli.options import Context, Namespace, Output, complete_run
from flashrun.cli.output import terminal
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table
from flashrun.plan.resolve import resolve_eval, resolve_train

First = Annotated[
    str, typer.Argument(help="Name of a run.", metavar="A", autocompletion=complete_run)
]
Second = Annotated[
    str, typer.Argument(help="Name of the other run.", metavar="B", autocompletion=complete_run)
]


def diff(
    first: First,
    second: Second,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show the settings in which two runs differ.

    The resolved specs are compared: what was given, the defaults of the recipe, and what the
    platform chose (platform.…: pool, GPUs, image, package of the environment, revision of the
    model). The exit code is 0 whenever both runs exist, also when they differ.

    Example: flash diff flash-1795370000-3fa9c1d2 flash-1795380000-77b0e4aa
    """
    asyncio.run(_diff(check_run_name(first), check_run_name(second), output, namespace, context))


async def _diff(
    first: str, second: str, output: OutputFormat, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        runs = [
            await deleted_runs.find_run(session, first),
            await deleted_runs.find_run(session, second),
        ]
    for run in {run.name: run for run in runs}.values():
        if run.status.resolved is None:
            terminal.say(f"note: the platform has chosen nothing for {run.name} yet")
    differing = differences(*map(flat_settings, runs))
    if not differing:
        terminal.say(f"{first} and {second} have the same settings")
    if differing or output is not OutputFormat.TABLE:
        terminal.write_answer(
            output,
            data={
                "runs": [first, second],
                "differences": [
                    {"key": key, "values": list(values)} for key, values in differing.items()
                ],
            },
            names=differing,
            table=Table(
                ("KEY", first, second),
                tuple((Cell(key), *map(_cell, values)) for key, values in differing.items()),
            ),
        )


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return both values of each key whose values differ; None where a side has no value."""
    keys = dict.fromkeys((*first, *second))
    pairs = {key: (first.get(key), second.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def flat_settings(run: FlashRun) -> dict[str, Any]:
    """Return every setting of a run by its full name."""
    given = config_tables(run)
    tables = {
        "model": run.spec.model,
        "algorithm": str(run.spec.algorithm),
        "thinking": run.spec.thinking,
        "environment": given["environment"],
        "train": _train_settings(run),
        "eval": _eval_settings(run),
        "worker_env": given.get("worker_env", {}),
        "wandb": given.get("wandb", {}),
        "budget": given.get("budget", {}),
        "secret_refs": list(given_secrets(run)) or None,
        "platform": _platform_choices(run.status.resolved),
    }
    return {key: value for key, value in flatten_tables(tables) if value is not None}


def _train_settings(run: FlashRun) -> dict[str, Any]:
    """Return every key of ``train`` that the algorithm uses, with the rank of a warm start."""
    start = run.spec.train.init_from_adapter
    values = resolve_train(run.spec).model_dump(mode="json")
    chosen = run.status.resolved.train if run.status.resolved else {}
    if start:
        values |= {key: int(chosen[key]) for key in ("lora_rank", "lora_alpha") if key in chosen}
    return {**values, "init_from_adapter": start}


def _eval_settings(run: FlashRun) -> dict[str, Any]:
    """Return every setting of the evaluation; ``enabled`` alone where there is none."""
    resolved = resolve_eval(run.spec, resolve_train(run.spec))
    if resolved is None:
        return {"enabled": False}
    return resolved.model_dump(mode="json", include=set(EvalConfig.model_fields))


def _platform_choices(resolved: ResolvedStatus | None) -> dict[str, Any]:
    """Return what the platform chose, without the values of ``train``."""
    if resolved is None:
        return {}
    return resolved.model_dump(
        mode="json", exclude={"train", "eval", "ignored_keys", "batching", "adapted"}
    )


def _cell(value: Any) -> Cell:
    return Cell("" if value is None else toml_value(value))
