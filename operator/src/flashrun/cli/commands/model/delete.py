"""``flash model delete``: delete a revision of a model from the mirror, unless a run needs it."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from flashrun.api import names
from flashrun.api.catalog import Source
from flashrun.api.reasons import TERMINAL
from flashrun.cli.cluster import mirror
from flashrun.cli.cluster.connection import ClusterSession, connect
from flashrun.cli.models.model_name import ModelName, check_model_name, check_revision
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cluster_errors import Forbidden


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
        if users := await _runs_using(session, model, revision):
            raise UsageFailure(
                f"{model} is needed by {', '.join(users)}: a retry downloads it again",
                "wait until they have ended, or end them with flash cancel",
            )
        _confirm(model, revision, sure)
        files = await session.with_mirror(lambda store: mirror.delete(store, model, revision))
        platform = await session.get_platform()
    named = platform.catalog().get(model) if platform is not None else None
    if named is not None and (named.source, named.revision) == (Source.MIRROR, revision):
        terminal.say("note: the catalog still names it; remove its entry from the chart's values")
    terminal.say(f"deleted {files} files")
    terminal.write(f"{model}@{revision}")


async def _runs_using(session: ClusterSession, model: str, revision: str) -> list[str]:
    """Return the runs that have not ended and use the model, as far as they can be listed."""
    try:
        visible = await session.cluster.list(names.KIND)
    except Forbidden:
        visible = await session.list_manifests()
        terminal.say(f"note: only the runs in namespace {session.namespace} can be seen from here")
    return [
        f"{run['metadata']['namespace']}/{run['metadata']['name']}"
        for run in visible
        if run["spec"]["model"] == model and _may_use(run.get("status") or {}, revision)
    ]


def _may_use(status: dict[str, Any], revision: str) -> bool:
    """Return whether a run may still download this revision; a run without a Job has none yet."""
    pinned = (status.get("resolved") or {}).get("modelRevision", revision)
    return status.get("phase") not in TERMINAL and pinned == revision


def _confirm(model: str, revision: str, sure: bool) -> None:
    """Ask before deleting; raises ``UsageFailure`` when the answer is no or cannot be given."""
    if sure:
        return
    if not sys.stdin.isatty():
        raise UsageFailure(
            f"deleting {model} needs a confirmation, and standard input is not a terminal",
            "add -y",
        )
    if not typer.confirm(f"Delete {model} at revision {revision}?", err=True):
        raise UsageFailure("nothing was deleted")
