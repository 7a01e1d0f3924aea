"""Submit a run and follow it to its end; for train and rerun."""

import asyncio
from dataclasses import dataclass
from typing import Any

from flashrun.cli.cluster import follow
from flashrun.cli.cluster.connection import ClusterSession, connect, parse_run
from flashrun.cli.cluster.run_creation import (
    NewRun,
    check_with_cluster,
    create_run,
    new_run_name,
)
from flashrun.cli.cluster.run_polling import SUMMARY_SECONDS, settled_manifest
from flashrun.cli.output import terminal
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.run_summary import print_run
from flashrun.cli.output.run_view import ViewKind


@dataclass(frozen=True)
class Submission:
    """A run to submit, and what is printed about it."""

    new_run: NewRun
    background: bool
    output: OutputFormat
    view: ViewKind = ViewKind.SCREEN


def connect_and_submit(submission: Submission, namespace: str | None, context: str | None) -> None:
    """Connect to the cluster, then do as ``submit_and_follow``."""

    async def run() -> None:
        async with connect(context, namespace) as session:
            await submit_and_follow(session, submission)

    asyncio.run(run())


async def submit_and_follow(session: ClusterSession, submission: Submission) -> None:
    """Check a config with the cluster, create its run, and follow it unless in the background."""
    new = submission.new_run
    await check_with_cluster(session, new.composed, terminal.note)
    name = new_run_name()
    run = await create_run(session, name, new)
    terminal.say(f"submitted {run.namespace}/{name}")
    if submission.background:
        _print_submitted(await session.get_manifest(name), submission.output)
        return
    answered = await follow.follow_or_detach(session, name, submission.output, submission.view)
    manifest = await settled_manifest(session, name, 0 if answered else SUMMARY_SECONDS)
    finished = parse_run(manifest)
    if not answered:
        print_run(finished, manifest, submission.output)
    follow.report_outcome(finished, printed=answered)


def _print_submitted(manifest: dict[str, Any], output: OutputFormat) -> None:
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        terminal.write_data(manifest, output)
    else:
        terminal.write(manifest["metadata"]["name"])
