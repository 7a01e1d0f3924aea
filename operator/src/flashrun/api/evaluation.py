"""Evaluation on held-out examples: the names of its metrics, and which of two values is better."""

import re
from collections.abc import Mapping
from typing import Final

DEFAULT_SPLIT: Final = "eval"
"""Split that a run is evaluated on when its environment has it."""
SCORE: Final = "score"
"""Mean score of the environment over the examples that could be scored."""
LOSS: Final = "loss"
"""SFT: mean loss per token of the answers to imitate; the only metric of which less is better."""
TOKEN_ACCURACY: Final = "token_accuracy"
"""SFT: share of those tokens that the model holds for the most likely ones."""
EXAMPLES: Final = "examples"
UNSCORED: Final = "unscored"
"""Answers that have no score, because the environment's code failed."""
SECONDS: Final = "seconds"
SFT_METRICS: Final = frozenset({LOSS, TOKEN_ACCURACY})
COUNTS: Final = frozenset({EXAMPLES, UNSCORED, SECONDS})
"""Metrics that say how an evaluation went, and not how good the model is."""

_PREFIX: Final = "eval/"
_PASS_AT = re.compile(r"pass@([1-9][0-9]{0,3})")


def metric_key(metric: str) -> str:
    """Return the name of an evaluation's metric among the metrics of a run."""
    return f"{_PREFIX}{metric}"


def pass_at(attempts: int) -> str:
    """Return the metric that says how often one of so many answers to an example is right."""
    return f"pass@{attempts}"


def attempts_of(metric: str) -> int | None:
    """Return k for the metric ``pass@k``; None for any other metric."""
    match = _PASS_AT.fullmatch(metric)
    return match and int(match[1])


def is_reserved(metric: str) -> bool:
    """Say whether evaluation itself has a metric of this name; an environment's is left out then.

    An environment's metric called ``score`` would hide the score, for example.
    """
    own = {SCORE} | SFT_METRICS | COUNTS
    return metric in own or attempts_of(metric) is not None


def is_better(metric: str, value: float, other: float) -> bool:
    """Say whether ``value`` of a metric is better than ``other``."""
    return value < other if metric == LOSS else value > other


def best_step(metric: str, values: Mapping[int, float]) -> int | None:
    """Return the step with the best value, of equal ones the earliest; None when there is none."""
    best: int | None = None
    for step in sorted(values):
        if best is None or is_better(metric, values[step], values[best]):
            best = step
    return best
