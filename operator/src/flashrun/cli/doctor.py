"""``flash doctor``: what works from this machine, and what to do about the rest."""

import asyncio
from collections.abc import Awaitable, Callable

import typer

from flashrun.cli import terminal
from flashrun.cli.failure import ExitCode
from flashrun.cli.options import Context, Namespace
from flashrun.cli.render import Tone
from flashrun.cli.session import Session, connect
from flashrun.spec import names


def doctor(namespace: Namespace = None, context: Context = None) -> None:
    """Check that this machine can submit runs: cluster, rights, platform, storage.

    Example: flash doctor -n team-a
    """
    healthy = asyncio.run(_doctor(namespace, context))
    raise typer.Exit(ExitCode.OK if healthy else ExitCode.RUN_FAILED)


async def _doctor(namespace: str | None, context: str | None) -> bool:
    async with connect(context, namespace) as session:
        place = f"context {session.cluster.context}, namespace {session.namespace}"
        terminal.write(f"ok    {place}", Tone.GOOD)
        checks: list[tuple[str, Callable[[Session], Awaitable[str]]]] = [
            ("FlashRuns", _flashruns),
            ("rights", _rights),
            ("platform", _platform),
            ("storage", _storage),
        ]
        return all([await _reported(session, name, check) for name, check in checks])


async def _reported(
    session: Session, name: str, check: Callable[[Session], Awaitable[str]]
) -> bool:
    """Run one check; a check that fails says so and lets the others run."""
    try:
        found = await check(session)
    except Exception as error:
        terminal.write(f"fail  {name}: {error}", Tone.BAD)
        return False
    terminal.write(f"ok    {name}: {found}", Tone.GOOD)
    return True


async def _flashruns(session: Session) -> str:
    return f"{len(await session.runs())} runs here"


async def _rights(session: Session) -> str:
    wanted = [("create", names.KIND), ("patch", names.KIND), ("create", "Secret"), ("get", "Pod")]
    refused = [
        f"{verb} {kind}"
        for verb, kind in wanted
        if not await session.cluster.may(verb, kind, session.namespace)
    ]
    if refused:
        raise PermissionError(f"you may not {', '.join(refused)} in {session.namespace}")
    return "you may submit runs with secrets and read their logs"


async def _platform(session: Session) -> str:
    platform = await session.platform()
    if platform is None:
        raise LookupError(f"ConfigMap {names.PUBLIC_CONFIG_MAP} cannot be read")
    pools = ", ".join(f"{pool.name} ({pool.vram:g} GiB)" for pool in platform.pools)
    return f"{len(platform.models)} models; pools {pools}"


async def _storage(session: Session) -> str:
    prefix = names.namespace_prefix(session.namespace)
    await session.stored(lambda store: next(iter(store.list(prefix, recursive=False)), None))
    return (await session.store()).location
