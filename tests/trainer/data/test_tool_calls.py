"""Calls of tools are read from what a model has sampled."""

from pathlib import Path
from typing import Any

import pytest

from flashrun_trainer.data.messages import Answer, SampledAnswer
from flashrun_trainer.data.tool_calls import check_calls_readable, read_sampled
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer import chat_templates
from tests.trainer.pods import resolved

TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add.",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    },
)


def test_calls_get_ids_and_their_arguments_as_text() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    request = SampledAnswer("Hm.", (call, call), True, 7, 3).to_request(2, "let me think")
    assert request == {
        "message": {
            "role": "assistant",
            "content": "Hm.",
            "tool_calls": [
                {
                    "id": f"call_2_{index}",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 1}'},
                }
                for index in range(2)
            ],
        },
        "thinking": "let me think",
        "cut_off": True,
        "tokens": {"prompt": 7, "completion": 3},
    }


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    """The tiny tokenizer with the template of Qwen3, in which the marks of a call are text."""
    from flashrun_trainer.model import load_tokenizer

    tokenizer = load_tokenizer(tiny_model)
    assert chat_templates.FOLDER
    tokenizer.chat_template = (chat_templates.FOLDER / "qwen3.jinja").read_text()
    return tokenizer


def read(tokenizer: Any, text: str, tools: Any = TOOLS, **train: Any) -> SampledAnswer:
    prompt = tokenizer("<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    ids = tokenizer(text)["input_ids"]
    raw = tokenizer.decode(ids, skip_special_tokens=True)
    run = resolved("grpo", **{"stop_sequences": (), **train})
    return read_sampled(tokenizer, run, prompt, ids, Answer(raw, thinks=False), tools)


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 41}}\n</tool_call>'


@pytest.mark.trainer
def test_a_call_is_read_and_the_rest_is_its_text(tokenizer: Any) -> None:
    check_calls_readable(tokenizer)
    answer = read(tokenizer, f"Let me add.\n{CALL}<|im_end|>")
    assert answer.content == "Let me add."
    assert answer.calls == (
        {"type": "function", "function": {"name": "add", "arguments": {"a": 41}}},
    )
    assert not answer.cut_off
    assert getattr(tokenizer, "response_template", None) is None


@pytest.mark.trainer
@pytest.mark.parametrize(
    "text", ["It is 42.", '<tool_call>\n{"name": add</tool_call>', "<tool_call>\n[1]</tool_call>"]
)
def test_what_is_not_a_call_is_text(tokenizer: Any, text: str) -> None:
    answer = read(tokenizer, f"{text}<|im_end|>")
    assert (answer.content, answer.calls) == (text, ())


@pytest.mark.trainer
def test_without_tools_nothing_is_read_as_a_call(tokenizer: Any) -> None:
    answer = read(tokenizer, f"{CALL}<|im_end|>", tools=())
    assert (answer.content, answer.calls) == (CALL, ())


@pytest.mark.trainer
@pytest.mark.parametrize(
    ("text", "stops", "cut_off"),
    [("Yes.<|im_end|>", (), False), ("Yes", (), True), ("Yes\n\n", ("\n\n",), False)],
)
def test_an_answer_without_an_end_is_cut_off(
    tokenizer: Any, text: str, stops: tuple[str, ...], cut_off: bool
) -> None:
    assert read(tokenizer, text, stop_sequences=stops).cut_off == cut_off


@pytest.mark.trainer
def test_a_template_whose_calls_nobody_can_read_is_refused(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    with pytest.raises(TrainerError, match="offers tools") as error:
        check_calls_readable(AutoTokenizer.from_pretrained(tiny_model))
    assert error.value.reason == "TemplateUnsupported"
