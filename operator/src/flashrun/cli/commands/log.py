"""``flash log``: what a run wrote, from its pod while that lives, from storage afterwards."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import follow as following
from flashrun.cli.cluster.connection import Session, connect, run_name
from flashrun.cli.options import Context, Follow, Namespace, Run
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import NotFoundFailure


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
    """Print what a run wrote.

    It comes from the pod while that is there, and from storage afterwards. Lines of init containers
    begin with their name. Without --follow it is the newest attempt's, with --follow every one's.

    Example: flash log flash-1795370000-3fa9c1d2 --attempt 1
    """
    asyncio.run(_log(run_name(run), follow, attempt, namespace, context))


async def _log(
    name: str, wait: bool, attempt: int | None, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        if wait:
            with following.view() as shown:
                await following.watch(name, following.follow(session, name, shown, attempt=attempt))
            return
        async for line in _lines(session, await session.run(name), attempt):
            terminal.write(line)


async def _lines(session: Session, run: FlashRun, attempt: int | None) -> AsyncIterator[str]:
    """Yield what an attempt wrote: from its pod, or from storage when that cannot be read."""
    from flashrun.cluster_errors import ClusterError

    pod, begun = await _pod(session, run, attempt), False
    try:
        async for line in _pod_log(session, run, pod):
            begun = True
            yield line
    except ClusterError:
        if begun:
            raise
    if not begun:
        for line in await _stored(session, run, attempt):
            yield line


async def _pod(session: Session, run: FlashRun, attempt: int | None) -> dict[str, Any] | None:
    """Return the pod of an attempt if it is still there; the newest attempt's by default."""
    pods = [pod for pod in await following.pods_of(session, run) if not following.prefix_of(pod)]
    if attempt is None:
        return pods[-1] if pods else None
    wanted = following.pod_of(run, attempt)
    return next((pod for pod in pods if pod["metadata"]["name"] == wanted), None)


async def _pod_log(
    session: Session, run: FlashRun, pod: dict[str, Any] | None
) -> AsyncIterator[str]:
    if pod is None:
        return
    name = pod["metadata"]["name"]
    for container in following.started_containers(pod):
        async for line in session.cluster.logs(run.namespace, name, container):
            yield following.prefixed(container, line)


async def _stored(session: Session, run: FlashRun, attempt: int | None) -> list[str]:
    from flashrun.store_errors import KeyNotFound

    known = [item.number for item in run.status.attempts]
    number = attempt or max(known, default=1)
    try:
        return await following.stored_log(session, run, number)
    except KeyNotFound:
        what = f"attempt {number} of {run.name} has" if attempt else f"{run.name} has"
        raise NotFoundFailure(f"{what} no log yet", f"flash status {run.name} says why") from None
