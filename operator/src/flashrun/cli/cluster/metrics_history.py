"""The metrics of a run in storage, and the scores of its evaluations among them."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

from flashrun import store_metrics
from flashrun.api import evaluation
from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import deleted_runs
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import NotFoundFailure
from flashrun.plan.resolve import resolve_eval, resolve_train


class MetricsTable(NamedTuple):
    """The metrics of a run by step, and the names of those that were asked for."""

    steps: dict[int, dict[str, float]]
    keys: list[str]


async def read_metrics(
    session: ClusterSession, name: str, keys: Sequence[str] | None = None
) -> MetricsTable:
    """Return the metrics of a run, also of one whose FlashRun was deleted.

    Raises:
        NotFoundFailure: the run does not exist, has no metrics yet, or lacks one of the ``keys``.
    """
    rows = await read_history(session, await deleted_runs.find_run(session, name))
    if not rows:
        raise NotFoundFailure(f"{name} has no metrics yet", f"flash status {name} shows why")
    steps = merge_steps(rows)
    known = list(dict.fromkeys(key for row in steps.values() for key in row))
    return MetricsTable(steps, choose_keys(known, keys))


async def read_history(session: ClusterSession, run: FlashRun) -> list[MetricsRow]:
    """Return the rows of a run's metrics in their order; empty while there are none."""
    prefix = run.storage_prefix
    lines = await session.with_store(lambda store: store_metrics.read_history(store, prefix))
    return [row for _, row in lines]


def merge_steps(rows: Iterable[MetricsRow]) -> dict[int, dict[str, float]]:
    """Return the metrics of each step, in the order of the steps.

    Training and evaluation write rows of their own for a step.
    """
    steps: dict[int, dict[str, float]] = {}
    for row in rows:
        steps.setdefault(row.step, {}).update(row.values)
    return dict(sorted(steps.items()))


def choose_keys(known: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Return the keys that were asked for, by name or by pattern; all when none were.

    Raises:
        NotFoundFailure: the run does not have the metric; the hint has the most similar one.
    """
    chosen: dict[str, None] = {} if wanted else dict.fromkeys(known)
    for pattern in wanted or ():
        matching = [key for key in known if key == pattern or fnmatchcase(key, pattern)]
        if not matching:
            near = get_close_matches(pattern, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known)}"
            raise NotFoundFailure(f"the run has no metric {pattern!r}", hint)
        chosen |= dict.fromkeys(matching)
    return list(chosen)


def judged_metric(run: FlashRun, rows: Iterable[MetricsRow]) -> str:
    """Return the metric by which the best checkpoint of a run is judged.

    It is the config's. An SFT run whose environment has no score is judged by its loss.
    """
    if run.status.evaluation is not None:
        return run.status.evaluation.metric
    settings = resolve_eval(run.spec, resolve_train(run.spec))
    metric = settings.metric if settings is not None else evaluation.SCORE
    return metric if scores_by_step(rows, metric) else evaluation.LOSS


def scores_by_step(rows: Iterable[MetricsRow], metric: str) -> dict[int, float]:
    """Return the value of an evaluation's metric after each evaluated step; 0 is the baseline."""
    key = evaluation.metric_key(metric)
    return {row.step: row.values[key] for row in rows if key in row.values}
