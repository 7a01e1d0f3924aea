"""Reasoning in the words of several models: what is reasoning, and what is the answer."""

from types import SimpleNamespace

import pytest

from flashrun_trainer.data.messages import Answer, has_reasoning
from flashrun_trainer.data.reasoning import THINK, ReasoningForm, decode

HARMONY = ReasoningForm("<|channel|>analysis<|message|>", "<|end|>", "<|channel|>final<|message|>")
GEMMA = ReasoningForm("<|channel>thought", "<channel|>")

ANSWERS = {
    "analysis, then the final channel": (
        HARMONY,
        "<|channel|>analysis<|message|>1 and 1<|end|>assistant<|channel|>final<|message|>2",
        ("2", "1 and 1"),
    ),
    "the final channel alone": (HARMONY, "<|channel|>final<|message|>2", ("2", "")),
    "a final channel that ends as a turn in the middle does": (
        HARMONY,
        "<|channel|>analysis<|message|>1<|end|>assistant<|channel|>final<|message|>2<|end|>",
        ("2", "1"),
    ),
    "analysis that never ends": (HARMONY, "<|channel|>analysis<|message|>1 and", ("", "1 and")),
    "a call of a tool after the analysis": (
        HARMONY,
        "<|channel|>analysis<|message|>1<|end|>assistant<|channel|>commentary to=functions.add"
        '<|message|>{"a": 1}',
        ('assistant<|channel|>commentary to=functions.add<|message|>{"a": 1}', "1"),
    ),
    "no channel at all": (HARMONY, "2", ("2", "")),
    "a thought channel": (GEMMA, "<|channel>thought\n1 and 1\n<channel|>2", ("2", "\n1 and 1\n")),
    "no thought": (GEMMA, "2", ("2", "")),
    "tags of another model are text": (GEMMA, "<think>1</think>2", ("<think>1</think>2", "")),
}


@pytest.mark.parametrize("thinks", [True, False])
@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_of_a_model_with_channels_is_never_its_reasoning(case: str, thinks: bool):
    form, raw, expected = ANSWERS[case]
    answer = Answer(raw, thinks, form=form)
    assert (str(answer), answer.thinking) == expected
    assert answer.raw == raw


def test_the_first_thought_ends_where_the_model_ends_it():
    raw = (
        "<|channel|>analysis<|message|>a<|end|>assistant<|channel|>commentary<|message|>b<|end|>"
        "assistant<|channel|>final<|message|>c"
    )
    assert Answer(raw, form=HARMONY).first_thought == "a"


OPENED = {
    "open tags": (THINK, "user ?\nassistant\n<think>\n", False, True),
    "empty tags": (THINK, "user ?\nassistant\n<think>\n\n</think>\n\n", False, False),
    "no tags": (THINK, "user ?\nassistant\n", False, False),
    "a question about tags": (THINK, "user <think>?\nassistant\n", False, False),
    "reasoning that the prompt begins": (THINK, "assistant\n<think>\nLet me", True, True),
    "an answer that the prompt begins": (
        THINK,
        "assistant\n<think>\n\n</think>\n\nIt",
        True,
        False,
    ),
    "an open channel": (GEMMA, "<|turn>model\n<|channel>thought\n", False, True),
}


@pytest.mark.parametrize("case", OPENED)
def test_a_prompt_may_open_the_reasoning(case: str):
    form, prompt, continues, expected = OPENED[case]
    assert form.is_opened_by(prompt, continues) == expected


def test_a_message_may_have_reasoning_in_the_tags_of_its_model_or_the_usual_ones():
    for text in ("<|channel>thought\n1<channel|>2", "<think>1</think>2"):
        assert has_reasoning({"role": "assistant", "content": text}, GEMMA)
    assert not has_reasoning({"role": "assistant", "content": "<|channel>thought\n1"}, GEMMA)


def test_tags_of_reasoning_are_decoded_although_they_are_special_tokens():
    words = {1: "<|channel>", 2: "<channel|>", 3: "<turn|>", 4: "thought", 5: "1", 6: "2"}
    special = {token: SimpleNamespace(content=words[token], special=True) for token in (1, 2, 3)}

    class Tokenizer:
        added_tokens_decoder = special

        def decode(self, ids, skip_special_tokens):
            assert skip_special_tokens
            return "".join(words[token] for token in ids if token not in special)

    ids = [1, 4, 5, 2, 6, 3]
    assert decode(Tokenizer(), ids, GEMMA) == "<|channel>thought1<channel|>2"
    assert decode(Tokenizer(), ids, THINK) == "thought12"
