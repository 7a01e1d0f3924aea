"""``flash status``: the progress of a run, and why it waits or failed."""

import asyncio

from flashrun.cli.cluster.connection import check_run_name, connect, parse_run
from flashrun.cli.cluster.follow import follow_or_detach
from flashrun.cli.options import Context, Follow, Namespace, Output, Run
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.run_summary import print_run
from flashrun.cli.output.run_view import open_view


def status(
    run: Run,
    follow: Follow = False,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show the progress of a run, and why it waits or failed.

    Also shows its attempts, its checkpoints and the GPUs that it got.

    Example: flash status flash-1795370000-3fa9c1d2 -f
    """
    asyncio.run(_status(check_run_name(run), follow, output, namespace, context))


async def _status(
    name: str, follow: bool, output: OutputFormat, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        if follow:
            with open_view(output) as view:
                await follow_or_detach(session, name, view, log=False)
        manifest = await session.get_manifest(name)
    print_run(parse_run(manifest), manifest, output)
