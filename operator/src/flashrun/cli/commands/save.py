"""``flash save``: ask a running run for a checkpoint now."""

import asyncio
import time

from flashrun.api.resource import TERMINAL
from flashrun.cli.cluster.connection import connect, run_name
from flashrun.cli.options import Context, Form, Namespace, Output, Run
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure


def save(
    run: Run, output: Form = Output.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """Ask a run for a checkpoint at its next step.

    Returns at once; the checkpoint is listed when it has arrived in storage.

    Example: flash save flash-1795370000-3fa9c1d2
    """
    asyncio.run(_save(run_name(run), output, namespace, context))


async def _save(name: str, output: Output, namespace: str | None, context: str | None) -> None:
    async with connect(context, namespace) as session:
        found = await session.run(name)
        if found.status.phase in TERMINAL:
            raise UsageFailure(
                f"{name} has ended ({found.status.phase}) and saves nothing more",
                f"flash checkpoints {name} lists what it saved",
            )
        await session.patch_control(name, {"saveRequest": str(int(time.time()))})
        manifest = await session.manifest(name)
    terminal.say(f"asked {name} for a checkpoint; flash checkpoints {name} lists it when it is up")
    if output in (Output.JSON, Output.YAML):
        terminal.write_data(manifest, output)
    elif output is Output.NAME:
        terminal.write(name)
