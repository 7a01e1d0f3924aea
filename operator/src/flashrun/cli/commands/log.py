"""``flash log``: the log of a run, from its pod while the pod exists, then from storage."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from flashrun.api.reasons import TERMINAL, ConditionType
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import deleted_runs, run_logs
from flashrun.cli.cluster.connection import ClusterSession, check_run_name, connect
from flashrun.cli.cluster.follow import follow_or_detach
from flashrun.cli.options import Context, Follow, Namespace, Run
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import NotFoundFailure
from flashrun.cluster_errors import ClusterError
from flashrun.store_errors import KeyNotFound


def log(
    run: Run,
    follow: Follow = False,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", min=1, help="One attempt of the run, counted from 1."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the log of a run.

    The log is read from the pod while it exists, and from storage afterwards. Lines of init
    containers begin with their name. Without --follow it is the log of the newest attempt, with
    --follow that of all attempts. A run whose FlashRun was deleted is read from storage.

    Example: flash log flash-1795370000-3fa9c1d2 --attempt 1
    """
    asyncio.run(_log(check_run_name(run), follow, attempt, namespace, context))


async def _log(
    name: str, follow: bool, attempt: int | None, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        run = await deleted_runs.find_run(session, name)
        if follow and not deleted_runs.is_deleted(run):
            await follow_or_detach(session, name, attempt=attempt)
            return
        async for line in _read_lines(session, run, attempt):
            terminal.write(line)


async def _read_lines(
    session: ClusterSession, run: FlashRun, attempt: int | None
) -> AsyncIterator[str]:
    """Yield an attempt's log: from its pod, or from storage when nothing can be read there."""
    pod, any_line = await _find_pod(session, run, attempt), False
    try:
        async for line in _read_pod(session, run, pod):
            any_line = True
            yield line
    except ClusterError:
        if any_line:
            raise
    if not any_line:
        for line in await _read_storage(session, run, attempt):
            yield line


async def _find_pod(
    session: ClusterSession, run: FlashRun, attempt: int | None
) -> dict[str, Any] | None:
    """Return the pod of an attempt, by default the newest; None when it does not exist."""
    pods = [pod for pod in await run_logs.list_pods(session, run) if not run_logs.node_prefix(pod)]
    if attempt is None:
        return pods[-1] if pods else None
    name = run_logs.attempt_pod_name(run, attempt)
    return next((pod for pod in pods if pod["metadata"]["name"] == name), None)


async def _read_pod(
    session: ClusterSession, run: FlashRun, pod: dict[str, Any] | None
) -> AsyncIterator[str]:
    if pod is None:
        return
    name = pod["metadata"]["name"]
    for container in run_logs.started_containers(pod):
        async for line in session.cluster.logs(run.namespace, name, container):
            yield run_logs.format_log_line(container, line)


async def _read_storage(session: ClusterSession, run: FlashRun, attempt: int | None) -> list[str]:
    try:
        if attempt is not None:
            return await run_logs.read_stored_log(session, run, attempt)
        return await run_logs.read_newest_log(session, run)
    except KeyNotFound:
        what = f"attempt {attempt} of {run.name} has" if attempt else f"{run.name} has"
        raise NotFoundFailure(f"{what} no log{_why_none(run)}", _where_to_look(run)) from None


def _why_none(run: FlashRun) -> str:
    """Return how a run without a log ended, in words that follow "no log"."""
    failure, ready = run.status.failure, run.status.condition(ConditionType.READY)
    if failure is not None:
        return f"; it ended with {failure.reason}: {failure.message}"
    if run.status.phase in TERMINAL and ready is not None:
        return f"; it ended with {ready.reason}: {ready.message}"
    return " yet"


def _where_to_look(run: FlashRun) -> str:
    failure = run.status.failure
    return failure.hint if failure and failure.hint else f"flash status {run.name} shows why"
