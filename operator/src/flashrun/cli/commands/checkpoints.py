"""``flash checkpoints``: the references of what a run saved."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

from flashrun.api import names
from flashrun.api.resource import CheckpointStatus, FlashRun
from flashrun.cli.cluster.connection import Session, connect, run_name
from flashrun.cli.options import Context, Form, Namespace, Output, Run
from flashrun.cli.output import formatting, terminal


def checkpoints(
    run: Run, output: Form = Output.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """List a run's checkpoints.

    Their references go into pull and train.init_from_adapter; each is one line in a pipe.

    Example: flash checkpoints flash-1795370000-3fa9c1d2
    """
    asyncio.run(_checkpoints(run_name(run), output, namespace, context))


async def _checkpoints(
    name: str, output: Output, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        run = await session.run(name)
        found = {item.step: item for item in run.status.checkpoints}
        if run.status.checkpoint_count > len(found):
            found = await _stored(session, run) | found
    listed = [found[step] for step in sorted(found)]
    if output in (Output.JSON, Output.YAML):
        data = [item.model_dump(mode="json", by_alias=True) for item in listed]
        terminal.write_data(data, output)
    elif output is Output.TABLE and terminal.is_terminal():
        terminal.write_table(formatting.checkpoints_table(listed, datetime.now(UTC)))
    else:
        by_name = [item.ref for item in listed]
        for line in by_name if output is Output.NAME else formatting.checkpoint_lines(listed):
            terminal.write(line)
    if not listed:
        terminal.say(f"{name} has no checkpoints yet")


async def _stored(session: Session, run: FlashRun) -> dict[int, CheckpointStatus]:
    """Return every committed checkpoint by its step; status lists only the newest."""
    prefix = run.storage_prefix
    entries = await session.stored(lambda store: list(store.list(prefix)))
    keys = [(names.parse_step_key(prefix, entry.key), entry) for entry in entries]
    sizes: Counter[tuple[int, int]] = Counter()
    for key, entry in keys:
        if key and key.path.startswith("adapter/"):
            sizes[key.attempt, key.step] += entry.size
    return {
        key.step: CheckpointStatus(
            ref=names.checkpoint_ref(run.name, key.step),
            step=key.step,
            bytes=sizes[key.attempt, key.step],
            created_time=entry.modified or datetime.now(UTC),
        )
        for key, entry in keys
        if key and key.path == names.MANIFEST
    }
