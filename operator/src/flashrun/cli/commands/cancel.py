"""``flash cancel``: end a run for good, keeping what it saved."""

import asyncio

from flashrun.api.reasons import TERMINAL
from flashrun.cli.cluster.connection import check_run_name, connect, parse_run
from flashrun.cli.cluster.follow import follow_run
from flashrun.cli.options import Context, Namespace, Output, Run
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.run_view import open_view


def cancel(
    run: Run,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """End a run for good; what it saved is kept.

    Waits until the run has ended and prints what was kept. A run that has ended is not changed.

    Example: flash cancel flash-1795370000-3fa9c1d2
    """
    asyncio.run(_cancel(check_run_name(run), output, namespace, context))


async def _cancel(
    name: str, output: OutputFormat, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        run = await session.get_run(name)
        if run.status.phase not in TERMINAL:
            await session.patch_control(name, {"cancel": True})
            terminal.say(f"cancelling {name}; Ctrl-C does not take it back")
            with open_view() as view:
                await follow_run(session, name, view, log=False)
        manifest = await session.get_manifest(name)
        run = parse_run(manifest)
    match output:
        case OutputFormat.JSON | OutputFormat.YAML:
            terminal.write_data(manifest, output)
        case OutputFormat.NAME:
            terminal.write(name)
        case OutputFormat.TABLE:
            sentence, _ = formatting.outcome(run)
            terminal.write(terminal.as_typed(sentence))
