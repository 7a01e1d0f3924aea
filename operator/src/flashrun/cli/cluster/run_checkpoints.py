"""The checkpoints of a run, from its status and from storage; nothing prints."""

from collections import Counter
from datetime import UTC, datetime

from flashrun.api import names
from flashrun.api.resource import CheckpointStatus, FlashRun
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import NotFoundFailure


async def list_checkpoints(
    session: ClusterSession, name: str
) -> tuple[FlashRun, list[CheckpointStatus]]:
    """Return a run and its committed checkpoints in the order of their steps.

    Those of a run whose FlashRun was deleted are found in storage.

    Raises:
        NotFoundFailure: no run has this name.
    """
    run, deleted = await _find_run(session, name)
    by_step = {item.step: item for item in run.status.checkpoints}
    if deleted or run.status.checkpoint_count > len(by_step):
        by_step = await _list_stored(session, run) | by_step
    by_step = await _with_scores(session, run, by_step)
    return run, [by_step[step] for step in sorted(by_step)]


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
