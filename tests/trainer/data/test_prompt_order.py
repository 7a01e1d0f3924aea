"""The order of GRPO's prompts: a function of seed and epoch, without anything that is kept."""

from itertools import islice

import pytest

from flashrun_trainer.data.prompt_order import PromptOrder, PromptSampler


def epoch_of(order: PromptOrder, epoch: int) -> list[int]:
    steps = order.steps_per_epoch
    return [row for step in range(epoch * steps, (epoch + 1) * steps) for row in order.step(step)]


def test_every_epoch_has_every_prompt_once_in_a_new_order_that_the_seed_decides():
    order = PromptOrder(prompts=12, prompts_per_step=3, steps=20, seed=1)
    epochs = [epoch_of(order, epoch) for epoch in range(5)]
    assert [sorted(rows) for rows in epochs] == [list(range(12))] * 5
    assert len(set(map(tuple, epochs))) == 5
    assert [epoch_of(PromptOrder(12, 3, 20, seed=1), epoch) for epoch in range(5)] == epochs
    assert epoch_of(PromptOrder(12, 3, 20, seed=2), 0) != epochs[0]


def test_a_step_is_the_same_whichever_step_was_asked_for_before():
    backwards = PromptOrder(6, 2, 18, seed=0)
    rows = [backwards.step(step) for step in reversed(range(18))]
    forwards = PromptOrder(6, 2, 18, seed=0)
    assert [forwards.step(step) for step in range(18)] == rows[::-1]


def test_prompts_that_do_not_fill_a_step_are_left_out_of_one_epoch_only():
    order = PromptOrder(prompts=5, prompts_per_step=2, steps=40, seed=3)
    epochs = [epoch_of(order, epoch) for epoch in range(20)]
    assert [len(set(rows)) for rows in epochs] == [4] * 20
    assert {row for rows in epochs for row in rows} == set(range(5))


def test_epochs_are_counted_in_steps():
    order = PromptOrder(prompts=7, prompts_per_step=2, steps=9, seed=0)
    assert [order.epochs_until(step) for step in (0, 3, 9)] == [0, 1, 3]


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_sampler_repeats_prompts_for_groups_and_steps_for_micro_batches(repeats: int):
    order = PromptOrder(prompts=6, prompts_per_step=2, steps=4, seed=5)
    sampler = PromptSampler(order, group_size=2, repeats=repeats)
    rows = list(sampler)
    assert len(rows) == len(sampler) == 4 * 2 * 2 * repeats
    first, second = order.step(0)
    assert rows[: 4 * repeats] == [first, first, second, second] * repeats
    # A new sampler, or the same one again, begins where the run does.
    assert list(islice(sampler, 8)) == rows[:8]
