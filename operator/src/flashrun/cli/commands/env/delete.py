"""``flash env delete``: delete an environment with all its versions, unless a run needs it."""

import asyncio
import sys
from typing import Annotated

import typer

from flashrun.api import names
from flashrun.api.reasons import TERMINAL
from flashrun.cli.cluster import published_environments
from flashrun.cli.cluster.connection import ClusterSession, connect
from flashrun.cli.environments.identifier import Identifier, check_identifier
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cluster_errors import Forbidden


def delete(
    identifier: Identifier,
    sure: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Delete an environment with all its versions.

    It is kept when a run that has not ended needs it.

    Example: flash env delete team-a/sums
    """
    asyncio.run(_delete(check_identifier(identifier), sure, namespace, context))


async def _delete(identifier: str, sure: bool, namespace: str | None, context: str | None) -> None:
    async with connect(context, namespace) as session:
        await published_environments.check_owner(session, identifier)
        keys = await published_environments.keys(session, identifier)
        if not keys:
            raise published_environments.not_published(identifier)
        if users := await _runs_using(session, identifier):
            raise UsageFailure(
                f"{identifier} is needed by {', '.join(users)}: a retry fetches it again",
                "wait until they have ended, or end them with flash cancel",
            )
        _confirm(identifier, len(keys) - 1, sure)
        latest = names.environment_latest_key(identifier)
        # The pointer goes first: an interrupted deletion leaves packages that nothing points to,
        # and no pointer to a package that is gone.
        pointer_first = sorted(keys, key=lambda key: key != latest)
        await session.with_store(lambda store: store.delete(pointer_first))
    terminal.write(identifier)


async def _runs_using(session: ClusterSession, identifier: str) -> list[str]:
    """Return the runs that have not ended and use the environment, as far as they can be listed."""
    try:
        visible = await session.cluster.list(names.KIND)
    except Forbidden:
        visible = await session.list_manifests()
        terminal.say(f"note: only the runs in namespace {session.namespace} can be seen from here")
    return [
        f"{run['metadata']['namespace']}/{run['metadata']['name']}"
        for run in visible
        if run["spec"]["environment"]["id"] == identifier
        and (run.get("status") or {}).get("phase") not in TERMINAL
    ]


def _confirm(identifier: str, versions: int, sure: bool) -> None:
    """Ask before deleting; raises ``UsageFailure`` when the answer is no or cannot be given."""
    if sure:
        return
    if not sys.stdin.isatty():
        raise UsageFailure(
            f"deleting {identifier} needs a confirmation, and standard input is not a terminal",
            "add -y",
        )
    what = f"{identifier} with {versions} version{'' if versions == 1 else 's'}"
    if not typer.confirm(f"Delete {what}? Finished runs could not be repeated", err=True):
        raise UsageFailure("nothing was deleted")
