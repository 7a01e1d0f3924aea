"""``flash status``: where a run is, and why it waits or failed."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from flashrun.cli.cluster import follow as following
from flashrun.cli.cluster.connection import connect, parsed, run_name
from flashrun.cli.options import Context, Follow, Form, Namespace, Output, Run
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.tables import Tone


def status(
    run: Run,
    follow: Follow = False,
    output: Form = Output.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show where a run is, what it saved, and why it waits or failed.

    Example: flash status flash-1795370000-3fa9c1d2 -f
    """
    asyncio.run(_status(run_name(run), follow, output, namespace, context))


async def _status(
    name: str, wait: bool, output: Output, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        if wait:
            with following.view() as shown:
                await following.watch(name, following.follow(session, name, shown, log=False))
        manifest = await session.manifest(name)
    print_run(manifest, output)


def print_run(manifest: dict[str, Any], output: Output) -> None:
    """Print a run in the form that was asked for."""
    run = parsed(manifest)
    match output:
        case Output.JSON | Output.YAML:
            terminal.write_data(manifest, output)
        case Output.NAME:
            terminal.write(f"{run.name} {run.status.phase}")
        case Output.TABLE:
            for label, text in formatting.summary(run, datetime.now(UTC)):
                tone = formatting.tone_of(run.status.phase) if label == "Phase" else Tone.PLAIN
                terminal.write(f"{label + ':':<13}{text}", tone)
