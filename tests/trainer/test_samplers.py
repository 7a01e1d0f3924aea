"""What samples the answers of an evaluation, and that transformers stops where they end."""

from pathlib import Path
from typing import Any

import pytest

from flashrun_trainer.data import stopping

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


def sampler(tiny_model: Path, *stops: str) -> Any:
    """Transformers with the tiny model."""
    from flashrun_trainer import model
    from flashrun_trainer.samplers import TransformersSampler

    tokenizer, network = model.load_tokenizer(tiny_model), model.load(tiny_model).eval()
    return TransformersSampler(
        network, tokenizer, model.end_token_ids(network, tokenizer), stops, sharded=False
    )


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


def sampled(model: Any, tokenizer: Any, questions: list[str]) -> list[list[int]]:
    """Greedy completions of at most 24 tokens: the same each time."""
    asked = tokenizer(questions, return_tensors="pt", padding=True, padding_side="left")
    with_prompts = model.generate(**asked, do_sample=False, max_new_tokens=24)
    found: list[list[int]] = with_prompts[:, asked["input_ids"].shape[1] :].tolist()
    return found


def test_transformers_ends_when_every_completion_has_its_stop_sequence(tiny_model: Path):
    from flashrun_trainer import model as base_model
    from flashrun_trainer.samplers import installed_for_transformers

    tokenizer, model = base_model.load_tokenizer(tiny_model), base_model.load(tiny_model)
    questions = ["1+1=", "What is 30+4?"]
    whole = sampled(model, tokenizer, questions)
    assert {len(ids) for ids in whole} == {24}
    texts = [tokenizer.decode(ids[:count]) for ids, count in zip(whole, (4, 9), strict=True)]
    wanted = tuple(text[-3:] for text in texts)
    kept = [stopping.ids_until_stop(tokenizer, ids, wanted) for ids in whole]
    longest = max(map(len, kept))

    with installed_for_transformers(model, tokenizer, wanted, sharded=False):
        ended = sampled(model, tokenizer, questions)

    assert {len(ids) for ids in ended} == {longest}
    assert longest < 24
    assert [stopping.ids_until_stop(tokenizer, ids, wanted) for ids in ended] == kept
    assert sampled(model, tokenizer, questions) == whole


def test_transformers_ends_at_a_special_token(tiny_model: Path):
    from flashrun_trainer import model as base_model
    from flashrun_trainer.samplers import installed_for_transformers

    tokenizer, model = base_model.load_tokenizer(tiny_model), base_model.load(tiny_model)
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    generate = model.generate

    def with_start(**inputs: Any) -> Any:
        """Sample, with the special token as the fifth token of every completion."""
        length = inputs["input_ids"].shape[1]

        def force(ids: Any, scores: Any) -> Any:
            if ids.shape[1] == length + 4:
                scores[:, start] = scores.max() + 1
            return scores

        return generate(**inputs, logits_processor=[force])

    model.generate = with_start
    whole = sampled(model, tokenizer, ["1+1="])
    assert (len(whole[0]), whole[0][4]) == (24, start)
    with installed_for_transformers(model, tokenizer, ("<|im_start|>",), sharded=False):
        ended = sampled(model, tokenizer, ["1+1="])
    assert ended == [whole[0][:5]]
    text = stopping.text_until_stop(tokenizer, ended[0], ("<|im_start|>",))
    assert text == tokenizer.decode(whole[0][:4])
