"""Sampling with transformers: a prompt is computed once, and what has ended is computed no more."""

from typing import Any

import pytest

from tests.trainer.random_models import FAMILIES, random_model

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

SHORT = ([11, 12, 13], [21, 22, 23, 24], [31, 32, 33], [41, 42], [51, 52, 53], [61, 62])
PROMPTS = ([5, 6, 7, 8, 9], *SHORT[:2], [5, 6, 7, 8, 9], *SHORT[2:], [5, 6, 7, 8, 9])
"""Of different lengths; the first is asked three times."""
NEW_TOKENS = 16


def ends(ids: Any, *_: Any, **__: Any) -> Any:
    """End a completion at every token that 5 divides, so that rows end at different times."""
    return ids[:, -1] % 5 == 0


def sampled(model: Any, *, ours: bool, prompts: Any = PROMPTS, **more: Any) -> list[list[int]]:
    """Return the completions up to their ends; greedy, unless ``more`` says another thing."""
    import torch
    from transformers import GenerationConfig

    from flashrun_trainer.group_sampling import sample_groups

    width = max(map(len, prompts))
    config = {"do_sample": False} | more.pop("config", {})
    torch.manual_seed(7)
    output = model.generate(
        input_ids=torch.tensor([[0] * (width - len(row)) + row for row in prompts]),
        attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts]),
        generation_config=GenerationConfig(
            max_new_tokens=NEW_TOKENS, eos_token_id=2, pad_token_id=0, use_cache=True, **config
        ),
        **({"custom_generate": sample_groups} if ours else {}),
        **more,
    )
    found = []
    for row in output[:, width:].tolist():
        stops = (count for count, token in enumerate(row, 1) if token == 2 or token % 5 == 0)
        found.append(row[: next(stops, len(row))])
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_most_likely_tokens_are_those_of_transformers_own_loop(family: str) -> None:
    model = random_model(family).double()
    model.set_experts_implementation("eager")  # the others have no float64
    criteria = {"stopping_criteria": [ends]}
    theirs = sampled(model, ours=False, **criteria)

    assert sampled(model, ours=True, **criteria) == theirs
    assert theirs[0] == theirs[3] == theirs[8]
    assert len({len(answer) for answer in theirs}) > 1


def test_what_is_sampled_has_the_probabilities_that_the_model_gives_it_alone() -> None:
    import torch

    model = random_model("Qwen3").double()
    seen: list[tuple[Any, Any]] = []

    def keep(ids: Any, scores: Any) -> Any:
        seen.append((ids, scores.clone()))
        return scores

    config = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    answers = sampled(
        model, ours=True, config=config, stopping_criteria=[ends], logits_processor=[keep]
    )

    assert len({tuple(answer) for answer in answers}) == len(PROMPTS)
    assert len({len(ids) for ids, _ in seen}) > 2  # rows have left the batch, more than once
    for ids, scores in seen:
        for row, own in zip(ids, scores, strict=True):
            alone = model(input_ids=row[row != 0].unsqueeze(0), use_cache=False).logits[0, -1]
            assert torch.allclose(own.double(), alone, atol=1e-6)


def test_the_same_seed_draws_the_same_tokens_as_transformers_while_nothing_has_ended() -> None:
    model = random_model("Llama").double()
    config = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    never = {"config": config | {"min_new_tokens": NEW_TOKENS}}
    ours, theirs = (sampled(model, ours=mine, **never) for mine in (True, False))

    assert ours == theirs


def test_a_prompt_is_computed_once_and_an_ended_completion_no_more() -> None:
    model = random_model("Qwen3")
    computed: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda _, __, arguments: computed.append(tuple(arguments["input_ids"].shape)),
        with_kwargs=True,
    )
    answers = sampled(model, ours=True, stopping_criteria=[ends])

    prompts, *tokens = computed
    assert prompts == (7, 5)  # the different prompts, with padding
    rows = [count for count, _ in tokens]
    assert {width for _, width in tokens} == {1}
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < len(PROMPTS)
    assert len(tokens) == max(map(len, answers)) - 1


def test_equal_tokens_after_different_padding_are_different_prompts() -> None:
    model = random_model("Qwen3").double()
    prompts = ([0, 0, 5, 6], [5, 6], [0, 5, 6])  # token 0 is also the padding
    first: dict[bool, Any] = {}

    def keep(ours: bool) -> Any:
        def note(_: Any, scores: Any) -> Any:
            first.setdefault(ours, scores.clone())
            return scores

        return [note]

    for ours in (True, False):
        sampled(model, ours=ours, prompts=prompts, logits_processor=keep(ours))

    assert first[True].equal(first[False])
    assert not first[True][0].equal(first[True][1])


def test_more_than_tokens_is_left_to_transformers() -> None:
    import torch
    from transformers import GenerationConfig

    from flashrun_trainer.group_sampling import sample_groups

    model = random_model("Qwen3")
    config = GenerationConfig(
        max_new_tokens=3, do_sample=False, pad_token_id=0, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    output = model.generate(
        input_ids=torch.tensor([[5, 6]]), generation_config=config, custom_generate=sample_groups
    )
    assert len(output.scores) == 3
