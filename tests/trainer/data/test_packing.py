"""How the steps of SFT are packed: the same examples and the same loss, with less padding."""

import re
from itertools import chain
from typing import Any

import pytest

from flashrun.api.trainer_choices import Layout
from flashrun_trainer.data import packing
from flashrun_trainer.data.packing import IGNORE_INDEX, BatchSampler, Collator
from tests.trainer.pods import Workshop, resolved

LENGTHS = [12, 3, 7, 7, 30, 4, 9, 5, 21, 6, 8, 2, 16, 11, 3, 10]


@pytest.mark.parametrize(
    ("sentence", "examples", "knobs", "sizes"),
    [
        ("whole batches", 16, {"epochs": 2}, [8, 8, 8, 8]),
        ("the last step of an epoch is smaller", 17, {"epochs": 2}, [8, 8, 1, 8, 8, 1]),
        ("fewer examples than a batch", 3, {"epochs": 2}, [3, 3]),
        ("capped by max_steps", 16, {"epochs": 2, "max_steps": 3}, [8, 8, 8]),
        ("a cap that is not reached", 16, {"epochs": 2, "max_steps": 50}, [8, 8, 8, 8]),
    ],
)
def test_a_step_has_batch_size_examples(
    sentence: str, examples: int, knobs: dict[str, int], sizes: list[int]
):
    steps = BatchSampler(resolved("sft", batch_size=8, **knobs), examples)
    assert [len(step) for step in steps] == sizes


def test_every_epoch_has_every_example_in_a_new_order_that_the_seed_decides():
    run = resolved("sft", batch_size=4, epochs=2)
    steps = BatchSampler(run, 16)
    first, second = list(chain(*steps[:4])), list(chain(*steps[4:]))
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second
    assert list(steps) == list(BatchSampler(run, 16))
    assert list(steps) != list(BatchSampler(run.model_copy(update={"seed": 43}), 16))


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("processes", [1, 2, 8])
@pytest.mark.parametrize("most", [None, 64, 16])
def test_a_plan_changes_where_examples_are_computed_and_not_which(
    layout: Layout, processes: int, most: int | None
):
    run = resolved("sft", batch_size=8, epochs=3, max_length=32)
    plan = packing.make_plan(run, LENGTHS, layout, most, processes)

    steps = BatchSampler(run, len(LENGTHS))
    assert len(steps) == 6
    for number, step in enumerate(steps):
        micro_batches = plan.micro_batches(number)
        assert len(micro_batches) == plan.gradient_accumulation_steps * processes
        assert sorted(chain(*micro_batches)) == sorted(step)
        for micro_batch in micro_batches if most else ():
            lengths = [LENGTHS[example] for example in micro_batch]
            assert len(micro_batch) <= 1 or packing.computed_tokens(lengths, layout, 32) <= most
    assert plan.tokens_until(0) == 0
    assert plan.tokens_until(6) == 3 * sum(LENGTHS)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("processes", [1, 4])
def test_the_examples_of_a_row_are_learned_in_the_same_step(layout: Layout, processes: int):
    rows = [range(5), range(5, 6), range(6, 9), range(9, 16)]
    run = resolved("sft", batch_size=2, epochs=3, max_length=32)
    plan = packing.make_plan(run, LENGTHS, layout, 64, processes, rows)

    assert len(plan.batches) == 6  # as without examples of several turns: a step has two rows
    for step, numbers in enumerate(BatchSampler(run, len(rows))):
        own = sorted(chain.from_iterable(rows[number] for number in numbers))
        assert sorted(chain(*plan.micro_batches(step))) == own
    assert plan.tokens_until(6) == 3 * sum(LENGTHS)
    first = sum(LENGTHS[example] for row in plan.batches[0] for example in rows[row])
    assert plan.tokens_until(1) == first
    assert packing.describe(plan).startswith("16 examples of 4 rows, 6 steps of ")


def test_a_run_without_end_is_planned_at_once():
    run = resolved("sft", batch_size=8, epochs=10**6)
    plan = packing.make_plan(run, LENGTHS, Layout.ROWS, most_tokens=10**6)

    assert len(plan.batches) == 2 * 10**6
    assert sorted(chain(*plan.batches[10**6 : 10**6 + 2])) == list(range(len(LENGTHS)))
    assert plan.tokens_until(10**6) == 5 * 10**5 * sum(LENGTHS)


def test_the_log_says_how_much_is_padding():
    run = resolved("sft", batch_size=16, epochs=2, max_length=32)
    sentence = packing.describe(packing.make_plan(run, LENGTHS, Layout.PADDED, most_tokens=480))
    assert sentence == (
        "16 examples, 2 steps of 1 micro-batch each; each example is padded to the longest, "
        "and 68% of computed tokens are padding"
    )
    shared = packing.describe(packing.make_plan(run, LENGTHS, Layout.ROWS, most_tokens=32))
    assert re.search(
        r"^16 examples, 2 steps of [1-9][0-9]* micro-batches each; several examples share a row, "
        r"and [0-9]+% of computed tokens are padding$",
        shared,
    ), shared


def test_packing_needs_fewer_micro_batches_and_computes_less_padding():
    run = resolved("sft", batch_size=16, epochs=1, max_length=32)
    accumulation = {
        layout: packing.make_plan(run, LENGTHS, layout, most_tokens=64).gradient_accumulation_steps
        for layout in Layout
    }
    assert accumulation[Layout.FLAT] <= accumulation[Layout.ROWS] < accumulation[Layout.PADDED]
    assert packing.computed_tokens(LENGTHS, Layout.FLAT, 32) == sum(LENGTHS)
    assert packing.computed_tokens(LENGTHS, Layout.ROWS, 32) == 155
    assert packing.computed_tokens(LENGTHS, Layout.PADDED, 32) == 480


def test_rows_are_no_longer_than_max_length():
    for row in packing.pack_rows(LENGTHS, Layout.ROWS, 32):
        assert sum(LENGTHS[index] for index in row) <= 32


@pytest.mark.parametrize(
    ("sentence", "lengths", "max_length", "computed"),
    [
        ("two even rows instead of a full one and a short one", [4] * 6, 20, 24),
        ("as many tokens in three rows as in two", [6, 6, 6, 2, 2, 2], 16, 24),
        ("a row more has less padding", [10, 10, 10, 6, 6, 6], 32, 48),
        ("an example longer than max_length has a row of its own", [40, 3, 3], 32, 80),
        ("no examples", [], 32, 0),
    ],
)
def test_rows_are_about_equally_long_because_each_is_padded_to_the_longest(
    sentence: str, lengths: list[int], max_length: int, computed: int
):
    rows = packing.pack_rows(lengths, Layout.ROWS, max_length)
    assert sorted(chain.from_iterable(rows)) == list(range(len(lengths))), sentence
    assert packing.computed_tokens(lengths, Layout.ROWS, max_length) == computed, sentence
    assert packing.pack_rows(lengths, Layout.ROWS, max_length) == rows


class Row:
    def __init__(self, ids: list[int], learned: int) -> None:
        self.input_ids = ids
        self.labels = [IGNORE_INDEX] * (len(ids) - learned) + ids[-learned:]


def collator(layout: Layout, width: int) -> Collator:
    return Collator(
        packing.make_plan(resolved("sft", max_length=width), [1], layout), [], pad_token_id=0
    )


def collated(layout: Layout, *rows: Row) -> dict[str, Any]:
    batch = collator(layout, 8).tensors(rows)
    return {name: value.tolist() if hasattr(value, "tolist") else value
            for name, value in batch.items()}  # fmt: skip


A, B = Row([11, 12, 13], 2), Row([21, 22], 1)


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
class TestTensors:
    def test_padded_rows_have_a_mask(self):
        assert collated(Layout.PADDED, A, B) == {
            "input_ids": [[11, 12, 13], [21, 22, 0]],
            "labels": [[IGNORE_INDEX, 12, 13], [IGNORE_INDEX, 22, IGNORE_INDEX]],
            "attention_mask": [[1, 1, 1], [1, 1, 0]],
        }

    def test_shared_rows_have_positions_that_begin_again(self):
        assert collated(Layout.ROWS, A, B, Row([31, 32, 33, 34, 35, 36], 1)) == {
            "input_ids": [[31, 32, 33, 34, 35, 36], [11, 12, 13, 21, 22, 0]],
            "labels": [
                [*[IGNORE_INDEX] * 5, 36],
                [IGNORE_INDEX, 12, 13, IGNORE_INDEX, 22, IGNORE_INDEX],
            ],
            "position_ids": [[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 0]],
        }

    def test_a_flat_row_says_where_examples_end(self):
        assert collated(Layout.FLAT, A, B) == {
            "input_ids": [[11, 12, 13, 21, 22]],
            "labels": [[IGNORE_INDEX, 12, 13, IGNORE_INDEX, 22]],
            "position_ids": [[0, 1, 2, 0, 1]],
            "cu_seq_lens_q": [0, 3, 5],
            "cu_seq_lens_k": [0, 3, 5],
            "max_length_q": 3,
            "max_length_k": 3,
            "seq_idx": [[0, 0, 0, 1, 1]],
        }

    @pytest.mark.parametrize("layout", Layout)
    def test_the_first_token_of_an_example_is_never_learned_from_its_neighbour(
        self, layout: Layout
    ):
        labels = collated(layout, A, Row([21, 22], 2))["labels"]
        assert 21 not in [label for row in labels for label in row]

    def test_a_micro_batch_without_examples_teaches_nothing(self):
        assert collated(Layout.ROWS)["labels"] == [[IGNORE_INDEX, IGNORE_INDEX]]


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", [Layout.ROWS, Layout.FLAT])
def test_packed_examples_have_the_loss_and_the_gradient_of_separate_ones(
    tiny_model: Any, attention: str, layout: Layout
):
    import torch
    from transformers import AutoModelForCausalLM

    rows = [
        Row([(7 * index + place) % 300 + 3 for place in range(length)], max(1, length // 2))
        for index, length in enumerate(LENGTHS)
    ]
    network = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation=attention)
    found = {}
    for kind in (Layout.PADDED, layout):
        batch = collator(kind, 32).tensors(rows)
        network.zero_grad()
        # With a key-value cache, as for generation, positions would be ignored.
        loss = network(**batch, use_cache=False, num_items_in_batch=100).loss
        loss.backward()
        found[kind] = [loss.detach(), *(weight.grad.clone() for weight in network.parameters())]
    for packed, separate in zip(found[layout], found[Layout.PADDED], strict=True):
        torch.testing.assert_close(packed, separate, rtol=1e-4, atol=1e-6)


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_run_learns_the_same_however_its_steps_are_divided(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    from flashrun_trainer import row_layout, trl_arguments

    ways = {
        "separate": (Layout.PADDED, None),
        "in shared rows": (Layout.ROWS, None),
        "in one row": (Layout.FLAT, None),
        "in several micro-batches": (Layout.ROWS, 100),
    }
    pods = {}
    for way, (layout, most) in ways.items():
        with monkeypatch.context() as changed:
            choice = row_layout.LayoutChoice(layout)
            changed.setattr(row_layout, "choose_layout", lambda *_, choice=choice: choice)
            changed.setattr(trl_arguments, "most_micro_batch_tokens", lambda _, most=most: most)
            pods[way] = workshop.pod(resolved("sft", max_steps=4))
            assert pods[way].train() == 0
    separate = pods.pop("separate")
    for pod in pods.values():
        for metric in ("loss", "grad_norm", "tokens"):
            assert pod.values(metric) == pytest.approx(separate.values(metric), rel=1e-3)
