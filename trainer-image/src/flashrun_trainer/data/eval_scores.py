"""What the answers to held-out examples say: the metrics of an evaluation, and how they compare.

Answers that could not be judged have no score, and are counted. Evaluations of a run may have
different numbers of examples, each a part of the larger one, so they are compared over the
examples of the newest one, which has the fewest.
"""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flashrun.api import evaluation
from flashrun.api.records import Evaluation, EvaluationPoint
from flashrun_trainer.data.rewards import Score

_PREFIX: Final = re.compile(r"first_\d+/")
_MOST_UNSCORED: Final = 0.1
"""Largest share of answers without a score with which an evaluation is compared to others."""


@dataclass(frozen=True)
class RowResult:
    """The answers to one example, and how well the model knows the example's own answer."""

    scores: tuple[Score, ...] = ()
    answers: tuple[str, ...] = ()
    """The answers as sampled."""
    loss: float = 0.0
    """Sum of the loss over the tokens of the example's own answer."""
    tokens: int = 0
    """Number of these tokens."""
    correct: int = 0
    """How many of them the model holds for the most likely ones."""


def evaluation_metrics(results: Sequence[RowResult]) -> dict[str, float]:
    """Return the metrics of an evaluation by their names in ``flashrun.api.evaluation``.

    A mean is over the examples that have a value, each with the mean of its answers.
    """
    by_example: dict[str, list[float]] = defaultdict(list)
    for result in results:
        judged = [score for score in result.scores if not score.error]
        own: dict[str, list[float]] = defaultdict(list)
        for score in judged:
            own[evaluation.SCORE].append(score.reward)
            for name, value in score.metrics.items():
                if not evaluation.is_reserved(name):
                    own[name].append(value)
        for name, values in own.items():
            by_example[name].append(statistics.fmean(values))
        for attempts in _attempts(len(result.scores)):
            if attempts <= len(judged):
                right = sum(score.success for score in judged)
                probability = pass_probability(len(judged), right, attempts)
                by_example[evaluation.pass_at(attempts)].append(probability)
    metrics = {name: statistics.fmean(values) for name, values in by_example.items()}
    if tokens := sum(result.tokens for result in results):
        metrics[evaluation.LOSS] = math.fsum(result.loss for result in results) / tokens
        correct = sum(result.correct for result in results)
        metrics[evaluation.TOKEN_ACCURACY] = correct / tokens
    unscored = sum(bool(score.error) for result in results for score in result.scores)
    metrics[evaluation.EXAMPLES] = float(len(results))
    metrics[evaluation.UNSCORED] = float(unscored)
    return metrics


def _attempts(samples: int) -> list[int]:
    """Return the k of ``pass@k`` for so many answers: powers of 2, and their number."""
    if samples < 2:
        return []
    powers = [2**power for power in range(samples.bit_length()) if 2**power < samples]
    return [*powers, samples]


def pass_probability(answers: int, right: int, attempts: int) -> float:
    """Return how probable it is that at least one of ``attempts`` answers is right.

    The unbiased estimator of pass@k from ``right`` of ``answers`` answers (Chen et al. 2021,
    Evaluating Large Language Models Trained on Code, equation 1).
    """
    return 1.0 - math.comb(answers - right, attempts) / math.comb(answers, attempts)


def prefix_key(examples: int, metric: str) -> str:
    """Return the name of a metric over the first ``examples`` examples of an evaluation."""
    return evaluation.metric_key(f"first_{examples}/{metric}")


def prefix_metrics(
    results: Sequence[RowResult], levels: Iterable[int], metric: str
) -> dict[str, float]:
    """Return a metric over fewer examples, for later evaluations that have no more."""
    shorter = {level: results[:level] for level in levels if level < len(results)}
    values = {level: evaluation_metrics(part).get(metric) for level, part in shorter.items()}
    return {
        prefix_key(level, metric): value for level, value in values.items() if value is not None
    }


def metrics_of_row(row: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an evaluation from its row of the history, by their own names.

    Left out are its seconds and what later evaluations with fewer examples need.
    """
    begin = evaluation.metric_key("")
    own = {name.removeprefix(begin): value for name, value in row.items() if name.startswith(begin)}
    return {
        name: value
        for name, value in own.items()
        if name != evaluation.SECONDS and not _PREFIX.match(name)
    }


def compare_evaluations(
    metric: str, samples: int, rows: Sequence[tuple[int, Mapping[str, float]]]
) -> Evaluation:
    """Return the first, the last and the best of a run's evaluations.

    ``rows`` are the steps of the evaluations, in order, and their metrics as in the history.
    """
    last_step, last = rows[-1]
    examples = int(last[evaluation.metric_key(evaluation.EXAMPLES)])
    values = {
        step: value
        for step, row in rows
        if (value := _value(metric, samples, row, examples)) is not None
    }
    trained = {step: value for step, value in values.items() if step > 0}
    best = evaluation.best_step(metric, trained)

    def point(step: int | None) -> EvaluationPoint | None:
        if step is None or step not in values:
            return None
        return EvaluationPoint(step=step, score=values[step])

    return Evaluation(
        metric=metric,
        baseline=point(0),
        last=point(last_step),
        best=point(best),
        examples=examples,
        unscored=int(last[evaluation.metric_key(evaluation.UNSCORED)]),
    )


def _value(metric: str, samples: int, row: Mapping[str, float], examples: int) -> float | None:
    """Return a metric of an evaluation over its first ``examples``; None if it says too little."""
    own_examples = row[evaluation.metric_key(evaluation.EXAMPLES)]
    unscored = row[evaluation.metric_key(evaluation.UNSCORED)]
    needs_scores = metric not in evaluation.SFT_METRICS
    if needs_scores and unscored > _MOST_UNSCORED * own_examples * samples:
        return None
    if own_examples == examples:
        return row.get(evaluation.metric_key(metric))
    return row.get(prefix_key(examples, metric))
