"""``flash checkpoints``: the checkpoints of a run."""

import asyncio
from datetime import UTC, datetime

from flashrun.cli.cluster.connection import check_run_name, connect
from flashrun.cli.cluster.run_checkpoints import list_checkpoints
from flashrun.cli.options import Context, Namespace, Output, Run
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat


def checkpoints(
    run: Run,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List a run's checkpoints.

    Use a reference with flash pull or as train.init_from_adapter. A checkpoint that was evaluated
    has its score on held-out examples. A pipe gets one line per checkpoint. Those of a run whose
    FlashRun was deleted are found in storage.

    Example: flash checkpoints flash-1795370000-3fa9c1d2
    """
    asyncio.run(_checkpoints(check_run_name(run), output, namespace, context))


async def _checkpoints(
    name: str, output: OutputFormat, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        run, listed = await list_checkpoints(session, name)
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        data = [item.model_dump(mode="json", by_alias=True) for item in listed]
        terminal.write_data(data, output)
    elif output is OutputFormat.TABLE and terminal.is_terminal():
        terminal.write_table(formatting.checkpoints_table(listed, run, datetime.now(UTC)))
    else:
        refs = [item.ref for item in listed]
        for line in refs if output is OutputFormat.NAME else formatting.checkpoint_lines(listed):
            terminal.write(line)
    if not listed:
        terminal.say(f"{name} has no checkpoints yet")
