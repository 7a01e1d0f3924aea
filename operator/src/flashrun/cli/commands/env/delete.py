"""``flash env delete``: delete an environment with all its versions, unless a run needs it."""

import asyncio
from typing import Annotated

import typer

from flashrun.api import names
from flashrun.cli.cluster import published_environments
from flashrun.cli.cluster.connection import connect
from flashrun.cli.cluster.unfinished_runs import full_name, list_unfinished_runs
from flashrun.cli.environments.identifier import Identifier, check_identifier
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal
from flashrun.cli.output.confirmation import confirm_deletion
from flashrun.cli.output.failure import UsageFailure


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
        unfinished = await list_unfinished_runs(session)
        users = [
            full_name(run) for run in unfinished if run["spec"]["environment"]["id"] == identifier
        ]
        if users:
            raise UsageFailure(
                f"{identifier} is needed by {', '.join(users)}: a retry fetches it again",
                "wait until they have ended, or end them with flash cancel",
            )
        if not sure:
            versions = len(keys) - 1
            what = f"{identifier} with {versions} version{'' if versions == 1 else 's'}"
            question = f"Delete {what}? Finished runs could not be repeated"
            confirm_deletion(identifier, question)
        latest = names.environment_latest_key(identifier)
        # The pointer goes first: an interrupted deletion leaves packages that nothing points to,
        # and no pointer to a package that is gone.
        pointer_first = sorted(keys, key=lambda key: key != latest)
        await session.with_store(lambda store: store.delete(pointer_first))
    terminal.write(identifier)
