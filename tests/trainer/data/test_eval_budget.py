"""How many held-out examples an evaluation has time for."""

import pytest

from flashrun_trainer.data.eval_budget import (
    FEWEST_EXAMPLES,
    LARGEST_SHARE,
    TimeSpent,
    affordable_examples,
    baseline_examples,
    example_levels,
)

LEVELS = [64, 32, 16, 8]


@pytest.mark.parametrize(
    ("most", "levels"), [(64, LEVELS), (100, [100, 50, 25, 12]), (8, [8]), (3, [3])]
)
def test_the_numbers_of_examples_are_halves_and_not_too_few(most: int, levels: list[int]):
    assert example_levels(most) == levels
    assert min(levels) >= min(most, FEWEST_EXAMPLES)


def history(step_seconds: float, *evaluations: tuple[float, float]) -> list[dict[str, float]]:
    """Ten steps, and evaluations of so many examples and seconds."""
    rows = [{"eval/examples": number, "eval/seconds": spent} for number, spent in evaluations]
    return rows + [{"seconds/step": step_seconds}] * 10


def test_a_history_tells_what_training_and_evaluations_have_cost():
    slow_start = [{"seconds/step": 50.0, "loss": 1.0}, *history(2.0, (64, 32.0), (16, 4.0))]
    spent = TimeSpent.from_history(slow_start)
    assert spent == TimeSpent(
        training=70.0, per_step=2.0, evaluations=36.0, per_example=0.25, examples=16
    )
    assert TimeSpent.from_history([]) == TimeSpent()


@pytest.mark.parametrize(
    ("what", "step_seconds", "baseline", "steps_left", "evaluations_left", "examples"),
    [
        ("time for all", 100.0, (64, 32.0), 90, 10, 64),
        ("time for half", 10.0, (64, 3.2), 90, 20, 32),
        ("never more than before", 100.0, (16, 8.0), 90, 10, 16),
        ("time for the fewest only", 1.0, (64, 3.2), 90, 3, 8),
        ("time for the last one only", 1.0, (8, 2.4), 90, 9, 0),
        ("no time, but the last one is due", 0.1, (8, 2.4), 0, 1, 8),
    ],
)
def test_an_evaluation_has_as_many_examples_as_there_is_time_for(
    what: str,
    step_seconds: float,
    baseline: tuple[float, float],
    steps_left: int,
    evaluations_left: int,
    examples: int,
):
    spent = TimeSpent.from_history(history(step_seconds, baseline))
    assert affordable_examples(LEVELS, spent, steps_left, evaluations_left) == examples, what


@pytest.mark.parametrize("answer_seconds", [0.01, 0.1, 0.5, 1.0])
def test_a_long_run_spends_no_more_than_its_share_on_evaluations(answer_seconds: float):
    """Step by step with a clock of its own: answers become slower while the run trains."""
    steps, every, step_seconds = 400, 20, 5.0
    count = steps // every + 1
    number = baseline_examples(LEVELS, answer_seconds, steps * step_seconds, count)
    rows = [{"eval/examples": number, "eval/seconds": number * answer_seconds}]
    for step in range(1, steps + 1):
        rows.append({"seconds/step": step_seconds})
        if step % every == 0:
            left = (steps - step) // every + 1
            spent = TimeSpent.from_history(rows)
            number = affordable_examples(LEVELS, spent, steps - step, left)
            slower = answer_seconds * (1 + step / steps)
            if number:
                rows.append({"eval/examples": number, "eval/seconds": number * slower})
    spent = TimeSpent.from_history(rows)
    total = spent.training + spent.evaluations
    least = 2 * FEWEST_EXAMPLES * 2 * answer_seconds
    assert spent.evaluations <= max(1.1 * LARGEST_SHARE * total, least)
    assert rows[-1].get("eval/examples")
    numbers = [row["eval/examples"] for row in rows if "eval/examples" in row]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize(
    ("training_seconds", "examples"), [(100_000.0, 64), (2_000.0, 32), (500.0, 8), (0.0, 8)]
)
def test_the_first_evaluation_is_as_large_as_an_estimate_allows(
    training_seconds: float, examples: int
):
    assert baseline_examples(LEVELS, 0.5, training_seconds, 5) == examples
