"""Advantages of a step's completions: pure functions over rewards and groups.

TRL computes the mean of a group in float32. The mean of equal rewards then differs from them by a
rounding error, and AdamW makes a whole learning rate of a gradient of that size. TRL's mean also
has completions from which nothing is learned. Here a group is what is learned, in float64.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What decides how a completion is learned."""

    reward: float
    judged: bool = True
    """Whether the environment has scored the completion; if not, ``reward`` means nothing."""
    cut_off: bool = False
    """Whether ``max_tokens`` has cut off one of its turns, and such completions are masked."""

    @property
    def learned(self) -> bool:
        """Whether the policy learns from the completion."""
        return self.judged and not self.cut_off


def split_groups(outcomes: Sequence[Outcome], group_size: int) -> Iterator[Sequence[Outcome]]:
    """Yield the groups; consecutive completions form a group."""
    for begin in range(0, len(outcomes), group_size):
        yield outcomes[begin : begin + group_size]


def is_flat(group: Sequence[Outcome]) -> bool:
    """Return whether the learned completions of a group have equal rewards, or are absent."""
    return len({outcome.reward for outcome in group if outcome.learned}) <= 1


def group_advantages(outcomes: Sequence[Outcome], group_size: int) -> list[float]:
    """Return the advantage of every completion.

    It is the reward minus the mean reward of the learned completions of the group: TRL's
    ``scale_rewards`` ``none``. It is exactly 0 in a flat group, and if not learned.
    """
    return [
        advantage
        for group in split_groups(outcomes, group_size)
        for advantage in _advantages(group)
    ]


def _advantages(group: Sequence[Outcome]) -> list[float]:
    if is_flat(group):
        return [0.0] * len(group)
    mean = statistics.fmean(outcome.reward for outcome in group if outcome.learned)
    return [outcome.reward - mean if outcome.learned else 0.0 for outcome in group]


def reward_metrics(outcomes: Sequence[Outcome], group_size: int) -> dict[str, float]:
    """Return the metrics of a step's rewards under TRL's names; NaN for a mean over nothing.

    ``reward`` and ``reward_std`` are over all judged completions, cut off or not.
    """
    rewards = [outcome.reward for outcome in outcomes if outcome.judged]
    mean = statistics.fmean(rewards) if rewards else math.nan
    deviation = statistics.stdev(rewards) if len(rewards) > 1 else math.nan
    flat = [is_flat(group) for group in split_groups(outcomes, group_size)]
    return {
        "reward": mean,
        "reward_std": deviation,
        "rewards/reward/mean": mean,
        "rewards/reward/std": deviation,
        "frac_reward_zero_std": statistics.fmean(flat),
    }
