"""Stop sequences: where a completion is cut, and which completions are learned."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun_trainer.data import stopping
from tests.trainer.pods import resolved


class Pieces:
    """A tokenizer whose tokens are pieces of text, and which counts its calls."""

    added_tokens_decoder = {
        "<|s|>": SimpleNamespace(content="<|s|>", special=True),
        "<think>": SimpleNamespace(content="<think>", special=False),
    }

    def __init__(self) -> None:
        self.asked = 0

    def decode(self, ids: list[str], skip_special_tokens: bool) -> str:
        self.asked += 1
        return "".join(piece for piece in ids if piece != "<|s|>" or not skip_special_tokens)


STOPS: dict[str, tuple[list[str], tuple[str, ...], list[str], str]] = {
    "none is wanted": (["a", "b"], (), ["a", "b"], "ab"),
    "none is there": (["a", "b"], ("x",), ["a", "b"], "ab"),
    "one token": (["a", "x", "b"], ("x",), ["a", "x"], "a"),
    "over the borders of tokens": (["a", "b<", "/", "ans>c", "d"], ("</ans>",),
                                   ["a", "b<", "/", "ans>c"], "ab"),
    "the first of several": (["a", "y", "x"], ("x", "y"), ["a", "y"], "a"),
    "at once": (["x", "a"], ("x",), ["x"], ""),
    "a special token": (["a", "<|s|>", "b"], ("<|s|>",), ["a", "<|s|>"], "a"),
    "behind a special token": (["a", "<|s|>", "b", "x", "c"], ("x",), ["a", "<|s|>", "b", "x"],
                               "ab"),
    "a special token and text": (["a", "<|s|>", "b", "<|s|>", "c!"], ("<|s|>c",),
                                 ["a", "<|s|>", "b", "<|s|>", "c!"], "ab"),
    "text and a special token": (["a", "b.", "<|s|>", "c"], (".<|s|>",), ["a", "b.", "<|s|>"],
                                 "ab"),
    "the spelling of a special token": (["a<", "|s", "|>b"], ("<|s|>",), ["a<", "|s", "|>b"], "a"),
    "a part of a special token beside one": (["a", "<|s|>", "b"], ("<|s|>", "s|>"), ["a", "<|s|>"],
                                             "a"),
    "what only looks like one": (["a", "<|s|>", "b"], ("|>",), ["a", "<|s|>", "b"], "ab"),
    "a token that is not special": (["a", "<think>", "b"], ("<think>",), ["a", "<think>"], "a"),
}  # fmt: skip


@pytest.mark.parametrize("case", STOPS)
def test_what_was_sampled_is_cut_where_a_stop_sequence_is_complete(case: str):
    ids, wanted, kept, text = STOPS[case]
    found = stopping.ids_until_stop(Pieces(), ids, wanted)
    assert found == kept
    assert stopping.text_until_stop(Pieces(), found, wanted) == text


def test_vllm_keeps_special_tokens_in_the_text_when_a_stop_sequence_names_one():
    class Names(Pieces):
        added_tokens_decoder = {1: SimpleNamespace(content="<|s|>", special=True)}

    assert stopping.vllm_arguments(Names(), ()) is None
    assert stopping.vllm_arguments(Names(), ("x",)) == {"stop": ["x"], "skip_special_tokens": True}
    named = {"stop": ["x", "<|s|>c"], "skip_special_tokens": False}
    assert stopping.vllm_arguments(Names(), ("x", "<|s|>c")) == named


def test_a_long_completion_is_not_decoded_once_per_token():
    tokenizer = Pieces()
    assert len(stopping.ids_until_stop(tokenizer, ["a"] * 3000 + ["x"] * 1000, ("x",))) == 3001
    assert tokenizer.asked < 20


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("stops", "impossible", "masked"),
    [
        ((), (), True),
        (("END",), (), False),
        (("<|im_start|>",), (), False),
        (("12345",), ("12345",), True),
        (("12345", "x"), ("12345",), False),
        ((" x",), (), False),
    ],
)
def test_cut_off_completions_are_learned_only_with_stop_sequences_that_can_occur(
    tiny_model: Path, stops: tuple[str, ...], impossible: tuple[str, ...], masked: bool
):
    from flashrun_trainer import model as base_model

    tokenizer = base_model.load_tokenizer(tiny_model)
    # Every digit is a token, so that five digits do not fit.
    train = resolved("grpo", stop_sequences=stops, max_tokens=4).train
    assert tuple(stopping.impossible_stops(tokenizer, train)) == impossible
    assert stopping.masks_cut_off(tokenizer, train) is masked


class Words:
    """A tokenizer of whole words: what is not among them becomes another text."""

    added_tokens_decoder: dict[int, Any] = {}
    words = ("<unk>", "the", "answer", "</answer>")

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        found = [self.words.index(word) if word in self.words else 0 for word in text.split()]
        return {"input_ids": found}

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return " ".join(self.words[index] for index in ids)


@pytest.mark.parametrize(
    ("stop", "occurs"), [("</answer>", True), ("the answer", True), ("<|im_start|>", False)]
)
def test_a_stop_sequence_without_tokens_cannot_occur(stop: str, occurs: bool):
    assert stopping.can_occur(Words(), stop, max_tokens=8) is occurs
