"""Advantages: a group is what is learned of it, and equal rewards teach nothing."""

import math
from fractions import Fraction

import pytest

from flashrun_trainer.data.advantages import (
    Outcome,
    group_advantages,
    is_flat,
    reward_metrics,
)

CUT = {"cut_off": True}
FAILED = {"judged": False}

Row = tuple[float, dict[str, bool]]
TABLE: dict[str, tuple[list[Row], list[float]]] = {
    "all are learned": ([(1, {}), (0, {}), (0, {}), (1, {})], [0.5, -0.5, -0.5, 0.5]),
    "a penalty scale with a failure": (
        [(-1, {}), (-0.5, {}), (0, FAILED), (-0.5, {})],
        [-1 / 3, 1 / 6, 0, 1 / 6],
    ),
    "the best score is of a failure": ([(-1, {}), (-1, {}), (0, FAILED)], [0, 0, 0]),
    "ended and cut off alike": ([(1, {}), (1, {}), (0, CUT), (0, CUT)], [0, 0, 0, 0]),
    "low ended, high cut off": ([(0.2, {}), (0.2, {}), (0.6, CUT), (0.6, CUT)], [0, 0, 0, 0]),
    "full scores and one cut off": ([(1, {}), (1, {}), (1, {}), (0, CUT)], [0, 0, 0, 0]),
    "one ended alone": ([(0, {}), (1, CUT), (1, CUT), (1, CUT)], [0, 0, 0, 0]),
    "failed and cut off": ([(1, {}), (0, {}), (5, FAILED | CUT), (9, CUT)], [0.5, -0.5, 0, 0]),
    "all failed": ([(0, FAILED)] * 4, [0, 0, 0, 0]),
    "all cut off": ([(1, CUT), (0, CUT)], [0, 0]),
}


@pytest.mark.parametrize("case", TABLE)
def test_an_advantage_is_the_distance_to_the_mean_of_what_is_learned(case: str):
    table, expected = TABLE[case]
    outcomes = [Outcome(reward, **marks) for reward, marks in table]
    assert group_advantages(outcomes, len(outcomes)) == pytest.approx(expected, abs=1e-15)
    # A second group changes nothing in the first.
    other = [Outcome(float(index)) for index in range(len(outcomes))]
    both = group_advantages([*outcomes, *other], len(outcomes))
    assert both[: len(outcomes)] == group_advantages(outcomes, len(outcomes))


@pytest.mark.parametrize("size", range(1, 33))
@pytest.mark.parametrize("reward", [0.1, 0.2, 0.3, 0.7, 0.9, 12.3, 100.1, -0.1, 1 / 3, 3e38, 1e-40])
def test_equal_rewards_have_advantages_of_exactly_zero(reward: float, size: int):
    outcomes = [Outcome(reward)] * size + [Outcome(reward / 2, cut_off=True)]
    assert group_advantages(outcomes, size + 1) == [0.0] * (size + 1)
    assert is_flat(outcomes)


def test_what_is_not_learned_has_no_influence_at_all():
    learned = [0.7, 0.1, 0.35]
    mean = sum(map(Fraction, learned)) / 3
    for marks in (CUT, FAILED, CUT | FAILED):
        for reward in (-1e6, 0.0, 0.7, 3e38, math.nan):
            outcomes = [Outcome(learned[0]), Outcome(reward, **marks)]
            outcomes += [Outcome(value) for value in learned[1:]]
            first, absent, *others = group_advantages(outcomes, 4)
            assert absent == 0.0
            expected = [float(Fraction(value) - mean) for value in learned]
            assert [first, *others] == pytest.approx(expected, rel=1e-14)


def test_means_of_rewards_leave_out_what_was_not_judged_and_keep_what_was_cut_off():
    outcomes = [
        Outcome(-1.0),
        Outcome(0.0, judged=False),
        Outcome(-2.0, cut_off=True),
        Outcome(-1.0),
    ]
    metrics = reward_metrics(outcomes, 2)
    assert metrics["reward"] == metrics["rewards/reward/mean"] == pytest.approx(-4 / 3)
    assert metrics["reward_std"] == pytest.approx(math.sqrt(1 / 3))
    assert metrics["frac_reward_zero_std"] == 1.0
    assert reward_metrics([Outcome(100.1)] * 8, 8)["reward_std"] == 0.0
    assert reward_metrics([Outcome(1.0), Outcome(0.0), *outcomes], 2)[
        "frac_reward_zero_std"
    ] == pytest.approx(2 / 3)


def test_a_step_in_which_nothing_was_judged_has_no_mean_of_rewards():
    metrics = reward_metrics([Outcome(0.0, judged=False)] * 4, 4)
    assert all(math.isnan(metrics[name]) for name in ("reward", "reward_std"))
    assert metrics["frac_reward_zero_std"] == 1.0
