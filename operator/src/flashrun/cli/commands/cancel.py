"""``flash cancel``: end a run for good, keeping what it saved."""

import asyncio

from flashrun.api.resource import TERMINAL
from flashrun.cli.cluster import follow
from flashrun.cli.cluster.connection import connect, run_name
from flashrun.cli.options import Context, Form, Namespace, Output, Run
from flashrun.cli.output import formatting, terminal


def cancel(
    run: Run, output: Form = Output.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """End a run for good; what it saved is kept.

    Waits until the run has ended and says what was kept. One that has ended stays as it is.

    Example: flash cancel flash-1795370000-3fa9c1d2
    """
    asyncio.run(_cancel(run_name(run), output, namespace, context))


async def _cancel(name: str, output: Output, namespace: str | None, context: str | None) -> None:
    async with connect(context, namespace) as session:
        before = await session.run(name)
        if before.status.phase not in TERMINAL:
            await session.patch_control(name, {"cancel": True})
            terminal.say(f"cancelling {name}; Ctrl-C does not take it back")
            with follow.view() as shown:
                await follow.follow(session, name, shown, log=False)
        manifest = await session.manifest(name)
        run = await session.run(name)
    match output:
        case Output.JSON | Output.YAML:
            terminal.write_data(manifest, output)
        case Output.NAME:
            terminal.write(name)
        case Output.TABLE:
            terminal.write(terminal.in_user_words(formatting.outcome(run)[0]))
