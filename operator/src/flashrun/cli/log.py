"""``flash log``: what a run wrote, from its pod while that lives, from storage afterwards."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from flashrun.cli import follow as following
from flashrun.cli import terminal
from flashrun.cli.failure import NotFoundFailure
from flashrun.cli.options import Context, Follow, Namespace, Run
from flashrun.cli.session import Session, connect, run_name
from flashrun.spec.run import FlashRun


def log(
    run: Run,
    follow: Follow = False,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", min=1, help="One attempt of the run; the newest when left out."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print a run's log; the lines of init containers begin with their name.

    Example: flash log flash-1795370000-3fa9c1d2 --attempt 1
    """
    asyncio.run(_log(run_name(run), follow, attempt, namespace, context))


async def _log(
    name: str, wait: bool, attempt: int | None, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        if wait:
            with following.view() as shown:
                await following.follow(session, name, shown)
            return
        run = await session.run(name)
        pod = await _pod(session, run, attempt)
        if pod is not None:
            async for line in _pod_log(session, run, pod):
                terminal.write(line)
        else:
            for line in await _stored(session, run, attempt):
                terminal.write(line)


async def _pod(session: Session, run: FlashRun, attempt: int | None) -> dict[str, Any] | None:
    """Return the pod of an attempt if it is still there; the newest attempt's by default."""
    pods = await following.pods_of(session, run)
    if attempt is None:
        return pods[-1] if pods else None
    wanted = next((item.pod for item in run.status.attempts if item.number == attempt), "")
    return next((pod for pod in pods if pod["metadata"]["name"] == wanted), None)


async def _pod_log(session: Session, run: FlashRun, pod: dict[str, Any]) -> AsyncIterator[str]:
    for container in following.started_containers(pod):
        name = pod["metadata"]["name"]
        async for line in session.cluster.logs(run.namespace, name, container):
            yield following.prefixed(container, line)


async def _stored(session: Session, run: FlashRun, attempt: int | None) -> list[str]:
    from flashrun.store import NotFound

    known = [item.number for item in run.status.attempts]
    number = attempt or max(known, default=1)
    try:
        return await following.stored_log(session, run, number)
    except NotFound:
        what = f"attempt {number} of {run.name} has" if attempt else f"{run.name} has"
        raise NotFoundFailure(f"{what} no log yet", f"flash status {run.name} says why") from None
