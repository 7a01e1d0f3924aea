"""``flash checkpoints``: the checkpoints of a run."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

from flashrun.api import names
from flashrun.api.resource import CheckpointStatus, FlashRun
from flashrun.cli.cluster.connection import ClusterSession, check_run_name, connect
from flashrun.cli.options import Context, Namespace, Output, Run
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.failure import NotFoundFailure
from flashrun.cli.output.output_format import OutputFormat


def checkpoints(
    run: Run,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """List a run's checkpoints.

    Use a reference with flash pull or as train.init_from_adapter. A checkpoint that was evaluated
    has its score on held-out examples. A pipe gets one line per checkpoint. Those of a run whose
    FlashRun was deleted are found in storage.

    Example: flash checkpoints flash-1795370000-3fa9c1d2
    """
    asyncio.run(_checkpoints(check_run_name(run), output, namespace, context))


async def _checkpoints(
    name: str, output: OutputFormat, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        run, deleted = await _find_run(session, name)
        by_step = {item.step: item for item in run.status.checkpoints}
        if deleted or run.status.checkpoint_count > len(by_step):
            by_step = await _list_stored(session, run) | by_step
        by_step = await _with_scores(session, run, by_step)
    listed = [by_step[step] for step in sorted(by_step)]
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        data = [item.model_dump(mode="json", by_alias=True) for item in listed]
        terminal.write_data(data, output)
    elif output is OutputFormat.TABLE and terminal.is_terminal():
        terminal.write_table(formatting.checkpoints_table(listed, run, datetime.now(UTC)))
    else:
        refs = [item.ref for item in listed]
        for line in refs if output is OutputFormat.NAME else formatting.checkpoint_lines(listed):
            terminal.write(line)
    if not listed:
        terminal.say(f"{name} has no checkpoints yet")


async def _find_run(session: ClusterSession, name: str) -> tuple[FlashRun, bool]:
    """Return a run, and whether its FlashRun was deleted, so that only storage knows it."""
    try:
        return await session.get_run(name), False
    except NotFoundFailure:
        from flashrun.cli.cluster.deleted_runs import find_run

        return await find_run(session, name), True


async def _with_scores(
    session: ClusterSession, run: FlashRun, by_step: dict[int, CheckpointStatus]
) -> dict[int, CheckpointStatus]:
    """Return the checkpoints with the scores that status does not have.

    These are older checkpoints, and those of an attempt that was stopped while it evaluated.
    """
    if run.status.evaluation is None or all(item.score for item in by_step.values()):
        return by_step
    from flashrun.cli.cluster.metrics_history import read_history, scores_by_step
    from flashrun.plan.evaluation_status import score_text

    rows = await read_history(session, run)
    scores = scores_by_step(rows, run.status.evaluation.metric)
    return {
        step: item.replace(
            score=item.score or (score_text(scores[step]) if step in scores else None)
        )
        for step, item in by_step.items()
    }


async def _list_stored(session: ClusterSession, run: FlashRun) -> dict[int, CheckpointStatus]:
    """Return every committed checkpoint by its step; status lists only the newest."""
    prefix = run.storage_prefix
    entries = await session.with_store(lambda store: list(store.list(prefix)))
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
