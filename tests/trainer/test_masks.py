"""What SFT learns, token by token: the assistant's words and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.pods import resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

USER = {"role": "user", "content": "What is 1 plus 1?"}
TOOL = {"role": "tool", "content": "2"}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from flashrun_trainer import model

    return model.load_tokenizer(tiny_model)


CASES = {
    "an answer is learned with the end of its turn": (
        [USER],
        [assistant("2")],
        False,
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[2<|im_end|>\n]",
    ),
    "with thinking on, the think tags are learned, too": (
        [USER],
        [assistant("2")],
        True,
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n[<think>\n\n</think>\n\n2<|im_end|>\n]",
    ),
    "reasoning is learned when thinking is on": (
        [USER],
        [assistant("<think>\n1 and 1\n</think>\n\n2")],
        True,
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n[<think>\n1 and 1\n</think>\n\n2<|im_end|>\n]",
    ),
    "a system prompt is context": (
        [{"role": "system", "content": "Be brief."}, USER],
        [assistant("2")],
        False,
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[2<|im_end|>\n]",
    ),
    "between two turns of the assistant, what others say is context": (
        [USER],
        [assistant("I count."), TOOL, assistant("2")],
        True,
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n[I count.<|im_end|>]\n"
        "<|im_start|>tool\n2<|im_end|>\n"
        "<|im_start|>assistant\n[<think>\n\n</think>\n\n2<|im_end|>\n]",
    ),
    "a turn in the middle is learned, whatever its last letter": (
        [USER],
        [assistant("#%"), USER, assistant("#")],
        False,
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n[#%<|im_end|>]\n"
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[#<|im_end|>\n]",
    ),
}


def marked(tokenizer: Any, row: Any) -> str:
    """The text of a row, with what is learned in brackets."""
    pieces, learning = [], False
    for token, label in zip(row.input_ids, row.labels, strict=True):
        assert label in (-100, token)
        if learning != (label != -100):
            learning = not learning
            pieces.append("[" if learning else "]")
        pieces.append(tokenizer.decode([token]))
    return "".join(pieces) + ("]" if learning else "")


@pytest.mark.parametrize("case", CASES)
def test_only_the_assistant_is_learned(tokenizer: Any, case: str):
    from flashrun_trainer import sft

    prompt, completion, thinking, expected = CASES[case]
    row = sft.render(tokenizer, prompt, completion, thinking)
    assert marked(tokenizer, row) == expected


def test_a_row_is_cut_at_max_length_and_dropped_when_nothing_is_left(tokenizer: Any):
    from types import SimpleNamespace

    from flashrun_trainer import sft

    answers = {"short": "2", "long": "2" * 40}
    environment = SimpleNamespace(
        examples=list(answers),
        prompt=lambda example: [USER, {"role": "user", "content": "x" * len(answers[example])}],
        completion=lambda example: [assistant(answers[example])],
    )
    whole = sft.render(tokenizer, environment.prompt("short"), [assistant("2")], False)
    run = resolved("sft", max_length=len(whole.input_ids))

    kept = sft.training_rows(environment, tokenizer, run)

    assert kept == [whole]
