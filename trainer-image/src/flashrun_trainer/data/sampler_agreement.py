"""How well the engine that samples agrees with the policy that learns: pure functions.

vLLM computes log-probabilities in other kernels than the trainer. The loss multiplies every token
by a factor, the ratio of the two probabilities, at most ``LARGEST_FACTOR``. The weight of a
completion is the mean factor of its learned tokens; it must not depend on the completion's length.
docs/decisions/0008-two-ways-to-sample.md has the measurements.
"""

import statistics
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

LARGEST_FACTOR: Final = 2.0
"""Largest factor of a token; larger ratios are truncated to it."""
_LENGTHS: Final = (0, 64, 256, 1024, 4096)
"""Borders between the lengths, in tokens, for which weights are reported."""


def weight_metrics(completions: Iterable[tuple[float, int]]) -> dict[str, float]:
    """Return the mean weight of a step's completions by length.

    Args:
        completions: weight and number of learned tokens of every completion that is learned.
    """
    by_length: dict[str, list[float]] = {}
    for weight, length in sorted(completions, key=lambda completion: completion[1]):
        by_length.setdefault(_metric_name(length), []).append(weight)
    return {name: statistics.fmean(weights) for name, weights in by_length.items()}


def _metric_name(length: int) -> str:
    for below, most in pairwise(_LENGTHS):
        if length <= most:
            return f"sampling/weight/{below + 1}-{most}"
    return f"sampling/weight/{_LENGTHS[-1] + 1}-"
