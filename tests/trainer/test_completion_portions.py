"""Completions of different lengths: what is computed for them, and that their values stay."""

from typing import Any

import pytest

pytestmark = pytest.mark.trainer


def test_rows_of_similar_length_are_computed_together_with_the_same_values_and_gradients():
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from flashrun_trainer.completion_portions import compute_in_portions

    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    prompts, completions = (3, 5, 5, 2, 4, 5, 1, 5), (9, 1, 30, 2, 12, 3, 28, 8)
    width, completion_width = 5 + 30, 30
    mask = torch.zeros(8, width, dtype=torch.int64)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        mask[row, 5 - prompt : 5 + completion] = 1
    ids = torch.randint(1, 40, mask.shape) * mask
    shapes: list[tuple[int, ...]] = []

    def compute(_: Any, ids: Any, mask: Any, kept: int) -> tuple[Any, Any]:
        shapes.append(tuple(ids.shape))
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -kept - 1 : -1]
        logps = logits.log_softmax(-1)
        chosen = logps.gather(-1, ids[:, -kept:, None])[..., 0]
        return chosen, -(logps.exp() * logps).sum(-1)

    def result(most: int) -> tuple[Any, Any, list[Any]]:
        model.zero_grad()
        logps, entropies = compute_in_portions(compute, ids, mask, completion_width, most)
        own = mask[:, 5:]
        (logps * own).sum().backward()
        return logps * own, entropies * own, [weight.grad.clone() for weight in model.parameters()]

    whole, whole_entropies, whole_gradients = result(1)
    assert shapes == [(8, width)]
    logps, entropies, gradients = result(4)
    # Two rows each; prompts are cut to the longest, too.
    assert shapes[1:] == [(2, 5 + 2), (2, 5 + 8), (2, 4 + 12), (2, 5 + 30)]
    torch.testing.assert_close(logps, whole)
    torch.testing.assert_close(entropies, whole_entropies)
    torch.testing.assert_close(gradients, whole_gradients)
    assert (logps.abs() > 0).sum() == sum(completions)


def test_rows_of_about_the_same_length_are_computed_at_once():
    import torch

    from flashrun_trainer.completion_portions import compute_in_portions

    mask = torch.ones(8, 20, dtype=torch.int64)
    mask[:, 18:] = 0
    mask[3, 18] = 1
    shapes: list[tuple[int, ...]] = []

    def compute(_: Any, ids: Any, mask: Any, kept: int) -> tuple[Any, None]:
        shapes.append(tuple(ids.shape))
        return ids[:, -kept:].float(), None

    logps, entropies = compute_in_portions(compute, mask, mask, 12, most=4)
    assert shapes == [(8, 19)]
    assert entropies is None
    assert logps.tolist() == mask[:, 8:].tolist()


def test_a_column_before_the_completions_stays_where_rows_have_no_prompt():
    import torch

    from flashrun_trainer.completion_portions import compute_in_portions

    mask = torch.zeros(4, 3 + 8, dtype=torch.int64)
    mask[:2, 3:5] = 1  # no prompt, and two tokens of a completion
    mask[2:, :] = 1
    shapes: list[tuple[int, ...]] = []

    def compute(_: Any, ids: Any, mask: Any, kept: int) -> tuple[Any, None]:
        shapes.append((*ids.shape, kept))
        return ids[:, :-1][:, -kept:].float(), None  # what is predicted from another column

    logps, _ = compute_in_portions(compute, mask, mask, 8, most=2)
    assert shapes == [(2, 1 + 2, 2), (2, 3 + 8, 8)]
    assert logps.shape == (4, 8)


def test_rows_without_a_learned_token_are_not_computed_and_their_values_are_zero():
    import torch

    from flashrun_trainer.completion_portions import among_all_rows, rows_to_compute

    mask = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 1, 0]])
    cases = {  # which rows are learned, and which are computed
        None: [0, 1, 2],
        (True, False, True): [0, 2],
        (False, True, False): [1],
        (False, False, False): [2],  # the loss needs a graph: the row with the fewest tokens
    }
    for learned, expected in cases.items():
        given = None if learned is None else torch.tensor(learned)
        assert rows_to_compute(mask, given).tolist() == expected

    rows = torch.tensor([0, 2])
    values = torch.tensor([[0.5, 0.25], [2.0, 4.0]], requires_grad=True)
    whole = among_all_rows(values, rows, 3)
    assert whole.tolist() == [[0.5, 0.25], [0.0, 0.0], [2.0, 4.0]]
    (whole * torch.tensor([[1.0], [10.0], [100.0]])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1.0, 1.0], [100.0, 100.0]]
