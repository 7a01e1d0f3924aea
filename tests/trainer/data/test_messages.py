"""Answers: what is reasoning, and what is scored."""

import copy
import pickle
from collections.abc import Callable

import pytest

from flashrun_trainer.data.messages import Answer


@pytest.mark.parametrize(
    ("sentence", "raw", "opened", "answer", "thinking"),
    [
        ("no reasoning", "42", False, "42", ""),
        ("spaces are kept without reasoning", " 42\n", False, " 42\n", ""),
        (
            "reasoning, then an answer",
            "<think>six by seven</think>\n\n42",
            False,
            "42",
            "six by seven",
        ),
        ("the prompt opened it", "six by seven</think>\n\n42", True, "42", "six by seven"),
        ("reasoning that never ends", "<think>six by", False, "", "six by"),
        ("the same, opened by the prompt", "six by", True, "", "six by"),
        (
            "what the prompt opened is not opened again",
            "six <think></think>42",
            True,
            "42",
            "six <think>",
        ),
        (
            "the last end counts",
            "<think>a</think>b<think>c</think>d",
            False,
            "d",
            "a</think>b<think>c",
        ),
    ],
)
def test_an_answer_comes_after_the_reasoning(
    sentence: str, raw: str, opened: bool, answer: str, thinking: str
):
    found = Answer(raw, opened=opened)
    assert (str(found), found.thinking, found.raw) == (answer, thinking, raw)
    # As it was sampled, up to its spaces.
    assert raw.endswith(found.completion)
    assert found.completion.strip() == answer.strip()


@pytest.mark.parametrize("raw", ["<think>a</think><answer>b</answer>", "<think>a", "b"])
def test_without_thinking_the_whole_completion_is_the_answer(raw: str):
    found = Answer(raw, thinks=False)
    assert (str(found), found.completion, found.raw, found.thinking) == (raw, raw, raw, "")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("thinks", [True, False])
def test_a_copy_of_an_answer_is_not_split_again(copied: Callable, thinks: bool):
    raw = "<think>a</think>b</think>c<think>d"
    found = copied(Answer(raw, thinks))
    assert str(found) == str(Answer(raw, thinks))
    assert vars(found) == vars(Answer(raw, thinks))


def test_the_first_thought_is_what_the_length_penalty_counts():
    assert Answer("<think>a</think>b<think>c</think>d").first_thought == "a"
