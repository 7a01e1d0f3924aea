"""Stop sequences: where a completion is cut, and that transformers does not sample much further."""

from pathlib import Path
from typing import Any

import pytest

from flashrun_trainer.data import stopping


class Pieces:
    """A tokenizer whose tokens are pieces of text, and which counts its calls."""

    def __init__(self) -> None:
        self.asked = 0

    def decode(self, ids: list[str], skip_special_tokens: bool) -> str:
        self.asked += 1
        return "".join(ids)


STOPS: dict[str, tuple[list[str], tuple[str, ...], list[str], str]] = {
    "none is wanted": (["a", "b"], (), ["a", "b"], "ab"),
    "none is there": (["a", "b"], ("x",), ["a", "b"], "ab"),
    "one token": (["a", "x", "b"], ("x",), ["a", "x"], "a"),
    "over the borders of tokens": (["a", "b<", "/", "ans>c", "d"], ("</ans>",),
                                   ["a", "b<", "/", "ans>c"], "ab"),
    "the first of several": (["a", "y", "x"], ("x", "y"), ["a", "y"], "a"),
    "at once": (["x", "a"], ("x",), ["x"], ""),
}  # fmt: skip


@pytest.mark.parametrize("case", STOPS)
def test_what_was_sampled_is_cut_where_a_stop_sequence_is_complete(case: str):
    ids, wanted, kept, text = STOPS[case]
    found = stopping.ids_until_stop(Pieces(), ids, wanted)
    assert found == kept
    assert stopping.text_until_stop(Pieces(), found, wanted) == text


def test_a_long_completion_is_not_decoded_once_per_token():
    tokenizer = Pieces()
    assert len(stopping.ids_until_stop(tokenizer, ["a"] * 3000 + ["x"] * 1000, ("x",))) == 3001
    assert tokenizer.asked < 20


def sampled(model: Any, tokenizer: Any, questions: list[str]) -> list[list[int]]:
    """Greedy completions of at most 24 tokens: the same each time."""
    asked = tokenizer(questions, return_tensors="pt", padding=True, padding_side="left")
    with_prompts = model.generate(**asked, do_sample=False, max_new_tokens=24)
    found: list[list[int]] = with_prompts[:, asked["input_ids"].shape[1] :].tolist()
    return found


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_transformers_ends_when_every_completion_has_its_stop_sequence(tiny_model: Path):
    from flashrun_trainer import model as base_model

    tokenizer, model = base_model.load_tokenizer(tiny_model), base_model.load(tiny_model)
    questions = ["1+1=", "What is 30+4?"]
    whole = sampled(model, tokenizer, questions)
    assert {len(ids) for ids in whole} == {24}
    texts = [tokenizer.decode(ids[:count]) for ids, count in zip(whole, (4, 9), strict=True)]
    wanted = tuple(text[-3:] for text in texts)
    kept = [stopping.ids_until_stop(tokenizer, ids, wanted) for ids in whole]
    longest = max(map(len, kept))

    with stopping.stop_criteria_installed(model, tokenizer, wanted):
        ended = sampled(model, tokenizer, questions)

    assert {len(ids) for ids in ended} == {longest}
    assert longest < 24
    assert [stopping.ids_until_stop(tokenizer, ids, wanted) for ids in ended] == kept
    assert sampled(model, tokenizer, questions) == whole
