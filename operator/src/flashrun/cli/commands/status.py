"""``flash status``: the progress of a run, and why it waits or failed."""

import asyncio

from flashrun.cli.cluster.connection import (
    ClusterSession,
    check_run_name,
    connect,
    parse_run,
)
from flashrun.cli.cluster.run_polling import SUMMARY_SECONDS, settled_manifest
from flashrun.cli.options import Context, Follow, Logs, Namespace, Output, Run
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import NotFoundFailure, UsageFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.run_summary import print_run


def status(
    run: Run,
    follow: Follow = False,
    logs: Logs = False,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show the progress of a run, and why it waits or failed.

    Also shows its attempts, its checkpoints and the GPUs that it got. With --follow a terminal
    shows them live, with curves of the metrics; Ctrl-C leaves the run running. A run whose FlashRun
    was deleted is read from storage.

    Example: flash status flash-1795370000-3fa9c1d2 -f
    """
    if logs and not follow:
        raise UsageFailure("--logs works only with --follow", f"flash log {run} prints the log")
    asyncio.run(_status(check_run_name(run), follow, logs, output, namespace, context))


async def _status(
    name: str,
    follow: bool,
    logs: bool,
    output: OutputFormat,
    namespace: str | None,
    context: str | None,
) -> None:
    async with connect(context, namespace) as session:
        try:
            if follow and await _follow(session, name, output, logs):
                return
            manifest = await settled_manifest(session, name, SUMMARY_SECONDS if follow else 0)
        except NotFoundFailure:
            await _print_deleted(session, name, output)
            return
    print_run(parse_run(manifest), manifest, output)


async def _follow(session: ClusterSession, name: str, output: OutputFormat, logs: bool) -> bool:
    """Follow the run; return False if there is nothing to follow, and True once it was shown."""
    from flashrun.cli.cluster.follow import follow_or_detach
    from flashrun.cli.output.run_view import view_kind

    return await follow_or_detach(session, name, output, view_kind(logs), log=logs)


async def _print_deleted(session: ClusterSession, name: str, output: OutputFormat) -> None:
    """Print a run whose FlashRun was deleted; raises ``NotFoundFailure`` for any other one."""
    from flashrun.api.run_record import RunRecord
    from flashrun.cli.cluster.deleted_runs import find_run

    run = await find_run(session, name)
    terminal.say(f"note: {name} was deleted; this is what storage has of it")
    print_run(run, RunRecord.of(run, run.status).to_manifest(), output)
