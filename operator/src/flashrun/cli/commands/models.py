"""``flash models``: the base models that runs can use, and the GPUs that they would get."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from flashrun.api.catalog import Model
from flashrun.api.config import Algorithm, EnvironmentConfig, RunConfig
from flashrun.api.public import PublicPlatform, PublicPool
from flashrun.cli.cluster.connection import connect
from flashrun.cli.config import platform_cache
from flashrun.cli.options import Context, Form, Namespace, Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure
from flashrun.cli.output.tables import Cell, Table, Tone
from flashrun.plan import placement
from flashrun.plan.resolve import resolve_train

Place = placement.Placement[PublicPool]


def models(
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Show what was seen last, without asking the cluster."),
    ] = False,
    output: Form = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List the base models and the GPUs that they would get.

    The last columns say which pool SFT and GRPO would get with the recipe's batch, and how many of
    its GPUs. Models are sorted by size.

    Example: flash models -o json
    """
    platform = platform_cache.platform() if offline else asyncio.run(_platform(namespace, context))
    listed = list(platform.catalog())
    if not platform.pools:
        terminal.say("note: pools are not known here, so neither is what fits them")
    terminal.write_answer(
        output,
        data=[_data(model, platform.pools) for model in listed],
        names=[model.id for model in listed],
        table=table(listed, platform.pools),
    )


async def _platform(namespace: str | None, context: str | None) -> PublicPlatform:
    try:
        async with connect(context, namespace) as session:
            seen = await session.platform()
    except Failure as failure:
        terminal.say(f"note: these are the models known here; {failure.sentence}")
        return platform_cache.platform()
    if seen is None:
        terminal.say("note: these are the models known here; the platform publishes no list")
    return seen or platform_cache.platform()


def place(pools: Sequence[PublicPool], model: Model, algorithm: Algorithm) -> Place | None:
    """Return where a run with the recipe's values would go, or None when no pool can take it."""
    anything = EnvironmentConfig(id="any/environment")
    config = RunConfig(model=model.id, algorithm=algorithm, environment=anything)
    return placement.choose_placement(pools, model, algorithm, resolve_train(config))


def table(models: Sequence[Model], pools: Sequence[PublicPool]) -> Table:
    """Return the models with their limits and, when pools are known, the place of a run."""
    return Table(
        ("MODEL", "PARAMETERS", "THINKING", "LORA CAP", "CONTEXT", "SFT", "GRPO"),
        tuple(
            (
                Cell(model.id),
                Cell(f"{model.parameters:g}B"),
                Cell(model.thinking),
                Cell(str(model.lora_rank_cap)),
                Cell(str(model.context)),
                *(_place(model, pools, algorithm) for algorithm in Algorithm),
            )
            for model in models
        ),
    )


def _place(model: Model, pools: Sequence[PublicPool], algorithm: Algorithm) -> Cell:
    need = f"{model.vram(algorithm):g} GiB"
    if not pools:
        return Cell(need)
    found = place(pools, model, algorithm)
    if found is None:
        return Cell(f"no pool ({need})", Tone.BAD)
    return Cell(f"{found.scale.world_size} x {found.pool.name} ({need})", Tone.GOOD)


def _data(model: Model, pools: Sequence[PublicPool]) -> dict[str, Any]:
    """Return a model for programs; ``places`` is null where pools are not known."""
    places = {str(algorithm): _place_data(pools, model, algorithm) for algorithm in Algorithm}
    return {**model.model_dump(mode="json", by_alias=True), "places": places if pools else None}


def _place_data(
    pools: Sequence[PublicPool], model: Model, algorithm: Algorithm
) -> dict[str, Any] | None:
    found = place(pools, model, algorithm)
    if found is None:
        return None
    scale = found.scale
    return {"pool": found.pool.name, "gpus": scale.world_size, "nodes": scale.nodes}
