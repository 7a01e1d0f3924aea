"""Every chat template gets messages in its own form: tool calls, reasoning, and what it omits."""

import json
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.data import conversations, message_reading, tool_definitions
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.chat_templates import ALL, SMOLLM2, tokenizer_with

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

USER = {"role": "user", "content": "What is 1 plus 1?"}
PLAIN = {"role": "assistant", "content": "2"}
TOOL = {"role": "tool", "content": "2"}
ADD = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}


def called(arguments: Any, **others: Any) -> dict[str, Any]:
    function = {"name": "add", "arguments": arguments}
    call = {"type": "function", "id": "call00001", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call], **others}


WRITES_NO_CALL = {
    *("cohere", "cohere2", "gemma", "gemma3", "phi3", "phi3_5", "llama3", "lfm2", "qwen2_5_vl"),
    *("idefics3", "smolvlm", "llava_next", "deepseek_r1_distill", SMOLLM2),
}
"""Templates, with those that TRL derives from them, that leave tool calls out or refuse them."""


def test_a_call_is_written_with_its_arguments_by_every_template_that_writes_calls(tiny_model: Path):
    from flashrun_trainer.data import chat_template
    from flashrun_trainer.data.template_forms import unwritten_calls

    message = called({"zwei": "é", "eins": [1, {"x": None}]})
    talk = conversations.join([USER], [message], "row 1")
    silent = set()
    for name in ALL:
        tokenizer = tokenizer_with(name, tiny_model)
        try:
            text = chat_template.render(tokenizer, [USER, message], False, False)
        except TrainerError:
            silent.add(name.removesuffix("_training"))
            continue
        if unwritten_calls(tokenizer, talk):
            silent.add(name.removesuffix("_training"))
            assert "zwei" not in text
            continue
        assert all(word in text for word in ("add", "zwei", "é", "eins")), name
        if "gemma" not in name:  # Gemma's templates sort the keys themselves
            assert text.index("zwei") < text.index("eins"), name
        assert '\\"zwei' not in text, name  # not JSON text in JSON text
        assert "'zwei'" not in text, name  # not Python's notation
    assert silent <= WRITES_NO_CALL
    assert {SMOLLM2, "phi3", "llama3", "lfm2"} <= silent


@pytest.mark.parametrize("name", [SMOLLM2, "phi3", "llama3", "lfm2", "qwen2_5_vl"])
def test_a_learned_call_that_the_template_leaves_out_is_refused(tiny_model: Path, name: str):
    from flashrun_trainer.data.labels import tokenize_conversation

    tokenizer = tokenizer_with(name, tiny_model)
    for call in (called({}), called({}, content="I add.")):
        with pytest.raises(TrainerError) as error:
            tokenize_conversation(tokenizer, [USER], [call], False)
        assert (error.value.code, error.value.reason) == (Exit.DATA, "TemplateRefused")
        assert "of the assistant's message" in error.value.message


FORMS = {
    SMOLLM2: ("", "<think>", "</think>", ""),
    "qwen3": ("reasoning_content", "<think>", "</think>", ""),
    "qwen3_5_think": ("reasoning_content", "<think>", "</think>", ""),
    "nemotron_3_nano": ("reasoning_content", "<think>", "</think>", ""),
    "glm4moe": ("reasoning_content", "<think>", "</think>", ""),
    "lfm2_2_5": ("thinking", "<think>", "</think>", ""),
    "gemma4": ("", "<|channel>thought", "<channel|>", ""),
    "gemma4_v5": ("reasoning_content", "<|channel>thought", "<channel|>", ""),
    "gptoss": (
        *("thinking", "<|channel|>analysis<|message|>", "<|end|>"),
        "<|channel|>final<|message|>",
    ),
    "muse_glimmer": ("reasoning_content", "to=self<|message|>", "<|eom|>", "to=user<|message|>"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of_reasoning_is_that_of_the_template(tiny_model: Path, name: str):
    from flashrun_trainer.data.template_forms import template_form

    form = template_form(tokenizer_with(name, tiny_model))
    parts = (form.reasoning.start, form.reasoning.end, form.reasoning.answer_start)
    assert (form.reasoning_key, *parts) == FORMS[name]


WRITINGS = {
    "reasoning_content": {"content": "It is 2.", "reasoning_content": "One and one."},
    "reasoning": {"content": "It is 2.", "reasoning": "One and one."},
    "thinking": {"content": "It is 2.", "thinking": "One and one."},
    "tags": {"content": "<think>\nOne and one.\n</think>\n\nIt is 2."},
}
DROPS_REASONING = ("deepseek", "gemma4")
"""Templates that leave reasoning out, apart from the newest of Gemma 4."""


@pytest.mark.parametrize("writing", WRITINGS)
def test_reasoning_is_written_as_the_model_writes_it_however_a_row_does(
    tiny_model: Path, writing: str
):
    from flashrun_trainer.data import chat_template
    from flashrun_trainer.data.messages import Answer
    from flashrun_trainer.data.template_forms import template_form

    messages = message_reading.read_messages([USER, {"role": "assistant", **WRITINGS[writing]}])
    for name in (name for name in ALL if not name.startswith(DROPS_REASONING)):
        tokenizer = tokenizer_with(name, tiny_model)
        form = template_form(tokenizer)
        assert form.writes_reasoning, name
        opening = chat_template.render(tokenizer, messages[:1], True, True)
        text = chat_template.render(tokenizer, messages, True, False)
        shared = chat_template.common_length(opening, text)
        # A scorer that is given this text as a completion sees answer and reasoning again.
        opened = form.reasoning.is_opened_by(opening) and shared == len(opening)
        answer = Answer(text[shared:], True, opened, form.reasoning)
        assert answer.thinking.strip() == "One and one.", name
        assert answer.startswith("It is 2."), name


def test_what_a_template_leaves_out_is_a_warning_with_its_row(tiny_model: Path):
    from flashrun_trainer.data.template_forms import unwritten_remark

    tools = tuple(tool_definitions.read_tools([ADD]))
    reasoned = {**PLAIN, "reasoning_content": "Hm."}
    talks = [
        conversations.join([USER], [PLAIN], "row 1"),
        conversations.join([USER], [PLAIN], "row 2", tools),
        conversations.join([USER, called({}), TOOL, USER], [PLAIN], "row 3"),
        conversations.join([USER], [reasoned], "row 4"),
    ]
    assert unwritten_remark(tokenizer_with("qwen3", tiny_model), talks) == ""
    remark = unwritten_remark(tokenizer_with(SMOLLM2, tiny_model), talks)
    assert "tools (1 of 4 examples, row 2 first)" in remark
    assert "the tool calls of prompts (1 of 4 examples, row 3 first)" in remark
    assert "reasoning" not in remark
    # The prompt of DeepSeek-R1 opens the reasoning that its history leaves out.
    remark = unwritten_remark(tokenizer_with("deepseek_r1_distill", tiny_model), talks)
    assert "reasoning" not in remark
    remark = unwritten_remark(tokenizer_with("gemma4", tiny_model), talks)
    assert "reasoning (1 of 4 examples, row 4 first)" in remark


def test_arguments_as_text_keep_their_order_and_letters(tiny_model: Path):
    from flashrun_trainer.data.template_forms import template_form

    form = template_form(tokenizer_with("deepseekv3", tiny_model))
    [message] = form.adapt([called({"b": "é", "a": 1})])
    arguments = message["tool_calls"][0]["function"]["arguments"]
    assert arguments == '{"b": "é", "a": 1}'
    assert json.loads(arguments) == {"a": 1, "b": "é"}


def test_a_template_that_writes_what_it_is_given_gets_arguments_as_text(tiny_model: Path):
    from flashrun_trainer.data import chat_template

    tokenizer = tokenizer_with(SMOLLM2, tiny_model)
    tokenizer.chat_template = (
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + message.content }}"
        "{%- for call in message.tool_calls or [] %}"
        "{{- call.function.name ~ call.function.arguments }}{%- endfor %}{%- endfor %}"
    )
    text = chat_template.render(tokenizer, [USER, called({"b": "é", "a": True})], False, False)
    assert text.endswith('add{"b": "é", "a": true}')
