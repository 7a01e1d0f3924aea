"""``flash model delete``: delete a revision of a model from the mirror, unless a run needs it."""

import asyncio
from typing import Annotated, Any

import typer

from flashrun.api.catalog import Source
from flashrun.cli.cluster import mirror
from flashrun.cli.cluster.connection import connect
from flashrun.cli.cluster.unfinished_runs import full_name, list_unfinished_runs
from flashrun.cli.models.model_name import ModelName, check_model_name, check_revision
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal
from flashrun.cli.output.confirmation import confirm_deletion
from flashrun.cli.output.failure import UsageFailure


def delete(
    model: ModelName,
    revision: Annotated[str, typer.Option("--revision", help="Revision to delete.")],
    sure: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Delete a revision of a model from the mirror, complete or not.

    It is kept when a run that has not ended needs it.

    Example: flash model delete Qwen/Qwen3-0.6B --revision 3fa9c1d2e4b5
    """
    check_model_name(model)
    check_revision(revision)
    asyncio.run(_delete(model, revision, sure, namespace, context))


async def _delete(
    model: str, revision: str, sure: bool, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        unfinished = await list_unfinished_runs(session)
        if users := [full_name(run) for run in unfinished if _may_use(run, model, revision)]:
            raise UsageFailure(
                f"{model} is needed by {', '.join(users)}: a retry downloads it again",
                "wait until they have ended, or end them with flash cancel",
            )
        if not sure:
            confirm_deletion(model, f"Delete {model} at revision {revision}?")
        files = await session.with_mirror(lambda store: mirror.delete(store, model, revision))
        platform = await session.get_platform()
    entries = platform.catalog() if platform and platform.needs_entry(model) else None
    named = entries.get(model) if entries is not None else None
    if named is not None and (named.source, named.revision) == (Source.MIRROR, revision):
        terminal.say("note: the catalog still names it; remove its entry from the chart's values")
    terminal.say(f"deleted {files} files")
    terminal.write(f"{model}@{revision}")


def _may_use(run: dict[str, Any], model: str, revision: str) -> bool:
    """Return whether a run may still download this revision; a run without a Job has none yet."""
    resolved = (run.get("status") or {}).get("resolved") or {}
    used = (run["spec"]["model"], resolved.get("modelRevision", revision))
    return used == (model, revision)
