"""What samples the answers of an evaluation."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


def sampler(tiny_model: Path, *stops: str) -> Any:
    """Transformers with the tiny model."""
    from flashrun_trainer import model
    from flashrun_trainer.samplers import TransformersSampler

    tokenizer, network = model.load_tokenizer(tiny_model), model.load(tiny_model).eval()
    return TransformersSampler(network, tokenizer, model.end_token_ids(network, tokenizer), stops)


PROMPTS = ("What is 1 plus 1?", "Hello", "What is the largest number below one hundred?")


def prompts_of(made: Any) -> list[list[int]]:
    return [made.tokenizer(text)["input_ids"] for text in PROMPTS]


def test_greedy_answers_are_the_most_likely_tokens_and_no_longer_than_their_limit(
    tiny_model: Path,
):
    import torch

    made = sampler(tiny_model)
    prompts, limits = prompts_of(made), [9, 4, 6]
    answers = made.sample(prompts, limits, 0.0)
    assert [len(ids) <= limit for ids, limit in zip(answers, limits, strict=True)] == [True] * 3
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = made.model(input_ids=torch.tensor([prompt + answer])).logits[0]
        assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == answer


def test_answers_end_with_a_stop_sequence(tiny_model: Path):
    plain = sampler(tiny_model)
    prompts = prompts_of(plain)
    [first, *_] = plain.sample(prompts, [24] * 3, 0.0)
    stop = plain.tokenizer.decode(first[2:3])
    assert stop
    [stopped, *_] = sampler(tiny_model, stop).sample(prompts, [24] * 3, 0.0)
    assert stopped == first[: len(stopped)]
    assert len(stopped) <= 3


def test_answers_at_a_temperature_differ(tiny_model: Path):
    import torch

    made = sampler(tiny_model)
    torch.manual_seed(0)
    same = [prompts_of(made)[0]] * 4
    answers = made.sample(same, [8] * 4, 1.0)
    assert len({tuple(ids) for ids in answers}) == 4
    assert [len(ids) <= 8 for ids in answers] == [True] * 4
