"""``flash save``: ask a run for a checkpoint at its next step."""

import asyncio
import time

from flashrun.api.reasons import TERMINAL
from flashrun.cli.cluster.connection import check_run_name, connect
from flashrun.cli.options import Context, Namespace, Output, Run
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.output_format import OutputFormat


def save(
    run: Run,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Ask a run for a checkpoint at its next step.

    Returns at once; flash checkpoints lists the checkpoint when it is in storage.

    Example: flash save flash-1795370000-3fa9c1d2
    """
    asyncio.run(_save(check_run_name(run), output, namespace, context))


async def _save(
    name: str, output: OutputFormat, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        phase = (await session.get_run(name)).status.phase
        if phase in TERMINAL:
            raise UsageFailure(
                f"{name} has ended ({phase}) and saves nothing more",
                f"flash checkpoints {name} lists what it saved",
            )
        await session.patch_control(name, {"saveRequest": str(int(time.time()))})
        manifest = await session.get_manifest(name)
    terminal.say(
        f"asked {name} for a checkpoint; flash checkpoints {name} lists it when it is saved"
    )
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        terminal.write_data(manifest, output)
    elif output is OutputFormat.NAME:
        terminal.write(name)
