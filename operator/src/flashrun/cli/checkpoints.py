"""``flash checkpoints``: the references of what a run saved."""

import asyncio
from datetime import UTC, datetime

from flashrun.cli import render, terminal
from flashrun.cli.options import Context, Form, Namespace, Output, Run
from flashrun.cli.session import connect, run_name


def checkpoints(
    run: Run, output: Form = Output.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """List a run's checkpoints; their references go into pull and train.init_from_adapter.

    Example: flash checkpoints flash-1795370000-3fa9c1d2
    """
    asyncio.run(_checkpoints(run_name(run), output, namespace, context))


async def _checkpoints(
    name: str, output: Output, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        run = await session.run(name)
    found = run.status.checkpoints
    if output in (Output.JSON, Output.YAML):
        listed = [item.model_dump(mode="json", by_alias=True) for item in found]
        terminal.write_data(listed, output)
        return
    if output is Output.NAME:
        for item in sorted(found, key=lambda item: item.step):
            terminal.write(item.ref)
    elif terminal.console().is_terminal:
        terminal.write_table(render.checkpoints_table(run, datetime.now(UTC)))
    else:
        for line in render.checkpoint_lines(run):
            terminal.write(line)
    if not found:
        terminal.say(f"{name} has no checkpoints yet")
    elif run.status.checkpoint_count > len(found):
        terminal.say(f"the newest {len(found)} of {run.status.checkpoint_count}; all are kept")
