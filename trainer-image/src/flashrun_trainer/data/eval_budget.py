"""How many held-out examples an evaluation answers: evaluations take a twentieth of a run's time.

All evaluations of a run take their examples from one order, from its beginning, so fewer examples
are always a part of more. Their number is halved when the time is short, and never raised again:
scores of one run can then be compared over the examples that all evaluations share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flashrun.api import evaluation
from flashrun.api.records import STEP_SECONDS

LARGEST_SHARE: Final = 0.05
"""Largest share of a run's time that evaluations take."""
FEWEST_EXAMPLES: Final = 8
"""Fewer examples say nothing. The first and the last evaluation answer so many in any case."""


def example_levels(most: int) -> list[int]:
    """Return the numbers of examples that an evaluation may have, the largest first."""
    levels = [most]
    while levels[-1] // 2 >= FEWEST_EXAMPLES:
        levels.append(levels[-1] // 2)
    return levels


@dataclass(frozen=True)
class TimeSpent:
    """What training and evaluations have cost so far, in seconds."""

    training: float = 0.0
    per_step: float = 0.0
    evaluations: float = 0.0
    per_example: float = 0.0
    """Of the last evaluation."""
    examples: int = 0
    """Number of examples of the last evaluation; 0 before the first one."""

    @classmethod
    def from_history(cls, rows: Sequence[Mapping[str, float]]) -> "TimeSpent":
        """Return what the rows of a metrics history tell, those of evaluations among them."""
        examples_key, seconds_key = map(
            evaluation.metric_key, (evaluation.EXAMPLES, evaluation.SECONDS)
        )
        steps = [row[STEP_SECONDS] for row in rows if STEP_SECONDS in row]
        evaluations = [row for row in rows if row.get(examples_key)]
        last = evaluations[-1] if evaluations else {}
        usual = steps[1:] or steps  # the first step is slow: memory is allocated, kernels are built
        return cls(
            training=sum(steps),
            per_step=sum(usual) / len(usual) if usual else 0.0,
            evaluations=sum(row.get(seconds_key, 0.0) for row in evaluations),
            per_example=last.get(seconds_key, 0.0) / last[examples_key] if last else 0.0,
            examples=int(last.get(examples_key, 0)),
        )


def affordable_examples(
    levels: Sequence[int], spent: TimeSpent, steps_left: int, evaluations_left: int
) -> int:
    """Return how many examples the next evaluation answers; 0 leaves it out.

    ``evaluations_left`` counts it, and the run's last one, which is never left out.
    """
    if spent.examples:
        levels = [level for level in levels if level <= spent.examples] or [levels[-1]]
    expected = spent.training + steps_left * spent.per_step + spent.evaluations
    left = LARGEST_SHARE * expected - spent.evaluations
    for level in levels:
        if level * evaluations_left * spent.per_example <= left:
            return level
    # Evaluations in between are left out first: the last one is what the run ends with.
    needed = min(2, evaluations_left) * levels[-1] * spent.per_example
    return levels[-1] if needed <= left or evaluations_left == 1 else 0


def baseline_examples(
    levels: Sequence[int], per_example: float, training_seconds: float, evaluations: int
) -> int:
    """Return how many examples the first evaluation answers in all.

    ``per_example`` are the seconds of each of its first examples, ``training_seconds`` is an
    estimate for the whole run.
    """
    most = LARGEST_SHARE * training_seconds / max(1e-9, evaluations * per_example)
    return next((level for level in levels if level <= most), levels[-1])
