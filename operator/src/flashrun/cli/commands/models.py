"""``flash models``: the base models of the platform, and the GPUs that runs of them get."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from flashrun.api.catalog import Model
from flashrun.api.config import Algorithm, EnvironmentConfig, RunConfig
from flashrun.api.public import PublicPlatform, PublicPool
from flashrun.cli.cluster.connection import connect
from flashrun.cli.config import platform_cache
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table, Tone
from flashrun.plan import placement
from flashrun.plan.resolve import resolve_train

Place = placement.Placement[PublicPool]


def models(
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Show what was seen last; ask no cluster."),
    ] = False,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List the base models and the GPUs that runs of them get.

    The columns SFT and GRPO show how many GPUs of which pool a run would get with the default batch
    size. Models are sorted by size.

    Example: flash models -o json
    """
    platform = (
        platform_cache.load_platform() if offline else asyncio.run(_platform(namespace, context))
    )
    listed = list(platform.catalog())
    if not platform.pools:
        terminal.say("note: the pools are not known here, so no GPUs are shown")
    terminal.write_answer(
        output,
        data=[_data(model, platform.pools) for model in listed],
        names=[model.id for model in listed],
        table=models_table(listed, platform.pools),
    )


async def _platform(namespace: str | None, context: str | None) -> PublicPlatform:
    try:
        async with connect(context, namespace) as session:
            platform = await session.get_platform()
    except Failure as failure:
        terminal.say(f"note: these are the models known here; {failure.sentence}")
        return platform_cache.load_platform()
    if platform is None:
        terminal.say("note: these are the models known here; the platform publishes no list")
    return platform or platform_cache.load_platform()


def choose_place(pools: Sequence[PublicPool], model: Model, algorithm: Algorithm) -> Place | None:
    """Return the place that a run with default values gets; None when no pool is large enough."""
    environment = EnvironmentConfig(id="any/environment")
    config = RunConfig(model=model.id, algorithm=algorithm, environment=environment)
    return placement.choose_placement(pools, model, algorithm, resolve_train(config))


def models_table(models: Sequence[Model], pools: Sequence[PublicPool]) -> Table:
    """Return the models with their limits and, when the pools are known, the place of a run."""
    return Table(
        ("MODEL", "PARAMETERS", "THINKING", "LORA CAP", "CONTEXT", "SFT", "GRPO"),
        tuple(
            (
                Cell(model.id),
                Cell(f"{model.parameters:g}B"),
                Cell(model.thinking),
                Cell(str(model.lora_rank_cap)),
                Cell(str(model.context)),
                *(_place_cell(model, pools, algorithm) for algorithm in Algorithm),
            )
            for model in models
        ),
        dispensable=("CONTEXT", "LORA CAP", "PARAMETERS", "THINKING", "SFT", "GRPO"),
    )


def _place_cell(model: Model, pools: Sequence[PublicPool], algorithm: Algorithm) -> Cell:
    need = f"{model.vram(algorithm):g} GiB"
    if not pools:
        return Cell(need)
    place = choose_place(pools, model, algorithm)
    if place is None:
        return Cell(f"no pool ({need})", Tone.BAD)
    return Cell(f"{place.scale.world_size} x {place.pool.name} ({need})", Tone.GOOD)


def _data(model: Model, pools: Sequence[PublicPool]) -> dict[str, Any]:
    """Return a model for programs; ``places`` is null when the pools are not known."""
    places = {str(algorithm): _place_data(pools, model, algorithm) for algorithm in Algorithm}
    return {**model.model_dump(mode="json", by_alias=True), "places": places if pools else None}


def _place_data(
    pools: Sequence[PublicPool], model: Model, algorithm: Algorithm
) -> dict[str, Any] | None:
    place = choose_place(pools, model, algorithm)
    if place is None:
        return None
    scale = place.scale
    return {"pool": place.pool.name, "gpus": scale.world_size, "nodes": scale.nodes}
