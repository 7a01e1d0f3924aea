"""What a report shows of a run: the run itself, its metrics, and some of what it sampled."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from flashrun.api import evaluation
from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import deleted_runs
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.cluster.metrics_history import judged_metric, read_history, scores_by_step
from flashrun.cli.cluster.stored_rollouts import StepRollouts, list_steps, read_rollouts
from flashrun.cli.output.failure import NotFoundFailure

TRAINING_STEPS: Final = 12
"""Steps of training whose rollouts are in a report."""


class ReportData(NamedTuple):
    """One run of a report."""

    run: FlashRun
    metrics: list[MetricsRow]
    metric: str
    """The metric of an evaluation by which checkpoints are judged."""
    sampled: tuple[StepRollouts, ...] = ()
    """Rollouts of some training steps."""
    answered: tuple[StepRollouts, ...] = ()
    """Answers of the evaluations before training, at its end, and at the best step."""

    @property
    def deleted(self) -> bool:
        """Whether the FlashRun was deleted, so that only storage knows the run."""
        return deleted_runs.is_deleted(self.run)


async def read_report(session: ClusterSession, name: str) -> ReportData:
    """Return what a report shows of a run.

    Raises:
        NotFoundFailure: there is no such run.
    """
    run = await deleted_runs.find_run(session, name)
    metrics = await read_history(session, run)
    metric = judged_metric(run, metrics)
    scores = scores_by_step(metrics, metric)
    evaluated = await list_steps(session, run, evaluated=True)
    best = evaluation.best_step(
        metric, {step: scores[step] for step in evaluated if step in scores}
    )
    shown = {*evaluated[:1], *evaluated[-1:], *(() if best is None else (best,))}
    training = spread(await list_steps(session, run, evaluated=False), TRAINING_STEPS)
    return ReportData(
        run,
        metrics,
        metric,
        await _read_steps(session, run, training, evaluated=False),
        await _read_steps(session, run, sorted(shown), evaluated=True),
    )


async def _read_steps(
    session: ClusterSession, run: FlashRun, steps: Sequence[int], *, evaluated: bool
) -> tuple[StepRollouts, ...]:
    found = []
    for step in steps:
        try:
            found.append(await read_rollouts(session, run, step, evaluated=evaluated))
        except NotFoundFailure:  # swept since they were listed
            continue
    return tuple(found)


def spread(steps: Sequence[int], count: int) -> list[int]:
    """Return up to ``count`` of the steps at equal distances, with the first and the last one."""
    if len(steps) <= count:
        return list(steps)
    places = (round(index * (len(steps) - 1) / (count - 1)) for index in range(count))
    return [steps[place] for place in places]
