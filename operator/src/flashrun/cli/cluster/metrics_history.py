"""The metrics of a run in storage, and the scores of its evaluations among them."""

from collections.abc import Iterable

from flashrun import store_metrics
from flashrun.api import evaluation
from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.plan.resolve import resolve_eval, resolve_train


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
