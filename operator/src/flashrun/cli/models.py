"""``flash models``: the base models that runs can use."""

import asyncio
from typing import Annotated

import typer

from flashrun.cli import known, render, terminal
from flashrun.cli.failure import Failure
from flashrun.cli.options import Context, Form, Namespace, Output
from flashrun.cli.session import connect
from flashrun.spec.public import PublicPlatform


def models(
    offline: Annotated[
        bool, typer.Option("--offline", help="Show what is known without asking the cluster.")
    ] = False,
    output: Form = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List the base models, smallest first, with their limits.

    Example: flash models
    """
    platform = known.platform() if offline else asyncio.run(_platform(namespace, context))
    catalog = platform.catalog()
    match output:
        case Output.JSON | Output.YAML:
            listed = [model.model_dump(mode="json", by_alias=True) for model in catalog]
            terminal.write_data(listed, output)
        case Output.NAME:
            for model in catalog:
                terminal.write(model.id)
        case Output.TABLE:
            terminal.write_table(render.models_table(catalog, platform.pools))


async def _platform(namespace: str | None, context: str | None) -> PublicPlatform:
    try:
        async with connect(context, namespace) as session:
            seen = await session.platform()
    except Failure as failure:
        terminal.say(f"note: these are the models known here; {failure.sentence}")
        return known.platform()
    if seen is None:
        terminal.say("note: these are the models known here; the platform publishes no list")
    return seen or known.platform()
