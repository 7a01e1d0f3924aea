"""Which tokens SFT learns: what generation would have to produce, and nothing else."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.data.messages import Message
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer import chat_templates

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

USER: Message = {"role": "user", "content": "What is 1 plus 1?"}
AGAIN: Message = {"role": "user", "content": "And again?"}
TOOL: Message = {"role": "tool", "name": "add", "content": "the result"}
TOOLS: list[Message] = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
]


def assistant(content: str, **fields: Any) -> Message:
    return {"role": "assistant", "content": content, **fields}


def call(arguments: Any) -> Message:
    function = {"name": "add", "arguments": arguments}
    return assistant("", tool_calls=[{"type": "function", "function": function}])


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


def learned_turns(examples: Sequence[Any]) -> list[tuple[list[int], list[int]]]:
    """The tokens before each learned turn, and those of the turn."""
    turns = []
    for example in examples:
        place = 0
        for is_learned, group in groupby(example.labels, key=lambda label: label != -100):
            length = len(list(group))
            if is_learned:
                ids = list(example.input_ids)
                turns.append((ids[:place], ids[place : place + length]))
            place += length
    return turns


# --- every template of TRL ----------------------------------------------------------------------

# How templates end an answer and a call, and what the model writes between them, beside the words:
# by the beginning of their names.
ENDS = {
    "cohere2": "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "deepseek": "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "diffusion_gemma": "<turn|>",
    "gemma4": "<turn|>",
    "gemma": "<end_of_turn>",
    "glm4moe": "<|user|>",
    "gptoss": "<|return|>",
    "idefics3": "<end_of_utterance>",
    "lfm2": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llava_next": "</s>",
    "muse_glimmer": "<|eot|>",
    "nemotron": "<|im_end|>",
    "phi3": "<|end|>",
    "qwen": "<|im_end|>",
    "smolvlm": "<end_of_utterance>",
    "smollm2": "<|im_end|>",
}
CALL_ENDS = {
    "diffusion_gemma": "<|tool_response>",
    "gemma4_v2": "<turn|>",
    "gemma4": "<|tool_response>",
    "glm4moe": "<|observation|>",
    "gptoss": "<|call|>",
}
CHANNELS = {"gptoss": "<|channel|>final<|message|>", "muse_glimmer": " to=user<|message|>"}
WITHOUT_CALLS = (
    *("cohere", "deepseek_r1", "gemma3", "idefics3", "lfm2_training", "llama3_training"),
    *("llava_next", "phi3", "qwen2_5_vl", "smolvlm", "smollm2"),
)
NAMED_WITHOUT_CALLS = ("gemma", "gemma_training", "lfm2", "llama3")


def by_name(table: dict[str, str], name: str, default: str = "") -> str:
    """The entry whose key is the longest beginning of the name."""
    keys = [key for key in table if name.startswith(key)]
    return table[max(keys, key=len)] if keys else default


def writes_calls(name: str) -> bool:
    return not name.startswith(WITHOUT_CALLS) and name not in NAMED_WITHOUT_CALLS


def sent_by_a_server(
    tokenizer: Any, messages: Sequence[Message], thinking: bool, tools: Any, parts: bool
) -> list[int]:
    """The tokens with which a server asks for the next turn."""
    if parts:
        messages = [
            {**message, "content": [{"type": "text", "text": message["content"]}]}
            for message in messages
        ]
    ids: list[int] = tokenizer.apply_chat_template(
        list(messages),
        tools=tools or None,
        add_generation_prompt=True,
        enable_thinking=thinking,
        return_dict=False,
    )
    return ids


def test_all_templates_are_here():
    assert len(chat_templates.OF_TRL) == 72


@pytest.mark.parametrize("template", chat_templates.ALL)
def test_what_is_learned_is_what_generation_would_have_to_produce(tiny_model: Path, template: str):
    from flashrun_trainer.data import labels

    tokenizer = chat_templates.tokenizer_with(template, tiny_model)
    # The template of DeepSeek-V3 takes arguments as text only.
    arguments = json.dumps({"a": 7}) if template == "deepseekv3" else {"a": 7}
    parts = template.startswith(("idefics3", "llava_next", "smolvlm"))
    conversations: list[tuple[list[Message], list[Message]]] = [
        ([], [assistant("It is 2.")]),
        ([], [assistant("It is 2."), AGAIN, assistant("Still 2."), AGAIN, assistant("Yes, 2.")]),
    ]
    if writes_calls(template):
        talk = [call(arguments), TOOL, assistant("It is 2."), AGAIN, assistant("Still 2.")]
        conversations += [([], talk[:1]), ([], talk), (TOOLS, talk)]
    elif template.startswith("deepseek_r1"):
        # It writes results, though not calls, into the turn of the assistant.
        conversations += [([], [assistant("I add."), TOOL, assistant("It is 2.")])]
    for tools, completion in conversations:
        for thinking in (False, True):
            examples = labels.tokenize_conversation(tokenizer, [USER], completion, thinking, tools)
            turns = learned_turns(examples)
            own = [at for at, message in enumerate(completion) if message["role"] == "assistant"]
            assert len(turns) == len(own)
            for at, (context, ids) in zip(own, turns, strict=True):
                before = [USER, *completion[:at]]
                assert context == sent_by_a_server(tokenizer, before, thinking, tools, parts)
                learned = tokenizer.decode(ids)
                answer = by_name(ENDS, template)
                end = (
                    by_name(CALL_ENDS, template, answer)
                    if "tool_calls" in completion[at]
                    else answer
                )
                assert learned.count(end) == 1
                assert learned.endswith(end)
                words = learned.removesuffix(end)
                for other in (USER["content"], AGAIN["content"], TOOL["content"], "<|im_start|>"):
                    assert other not in words
                assert words.count("<") == words.count(">")  # no part of a token is lost
                if "tool_calls" in completion[at]:
                    assert "add" in words
                    assert "7" in words
                else:
                    for written in (
                        "<think>",
                        "</think>",
                        "<channel|>",
                        by_name(CHANNELS, template),
                    ):
                        words = words.replace(written, "", 1)
                    assert words.strip() == completion[at]["content"]


@pytest.mark.parametrize("written", ["", "\n"], ids=["at once", "and a newline"])
@pytest.mark.parametrize("template", chat_templates.ALL)
def test_an_answer_that_brings_its_own_end_is_learned_with_one(
    tiny_model: Path, template: str, written: str
):
    from flashrun_trainer.data import labels

    tokenizer = chat_templates.tokenizer_with(template, tiny_model)
    ended = f"It is 2.{by_name(ENDS, template)}{written}"
    for completion in ([ended], ["It is 1.", ended], [ended, "It is 3."]):
        plain = [
            text.removesuffix(written).removesuffix(by_name(ENDS, template)) for text in completion
        ]
        learned = [
            [
                tokenizer.decode(ids)
                for example in labels.tokenize_conversation(
                    tokenizer, [USER], talk_of(texts), False
                )
                for _, ids in learned_turns([example])
            ]
            for texts in (completion, plain)
        ]
        assert learned[0] == learned[1]


def talk_of(answers: Sequence[str]) -> list[Message]:
    """A conversation with these answers."""
    turns = [turn for answer in answers for turn in (assistant(answer), AGAIN)]
    return turns[:-1]


REASONED = [assistant("It is 2.", reasoning_content="Hm."), AGAIN, assistant("2.")]
# Templates whose prompt says whether the model reasons, or opens its reasoning.
ASKING = ("deepseek", "glm4moe", "nemotron", "qwen3_5", "qwen3_6", "qwen3_8")
ASKING_BY_NAME = ("qwen3", "qwen3_training")
OPENED = ("deepseek",)


@pytest.mark.parametrize(
    "template",
    [name for name in chat_templates.ALL if name.startswith(ASKING) or name in ASKING_BY_NAME],
)
@pytest.mark.parametrize("thinking", [True, False])
def test_reasoning_is_learned_where_the_prompt_asks_for_it(
    tiny_model: Path, template: str, thinking: bool
):
    from flashrun_trainer.data import labels

    tokenizer = chat_templates.tokenizer_with(template, tiny_model)
    in_content = [assistant("<think>\nHm.\n</think>\n\nIt is 2."), *REASONED[1:]]
    # Qwen 3.8 reads reasoning from its own field only.
    for completion in [REASONED] if template.startswith("qwen3_8") else [REASONED, in_content]:
        examples = labels.tokenize_conversation(tokenizer, [USER], completion, thinking)
        (_, first), _ = learned_turns(examples)
        words = tokenizer.decode(first).removesuffix(by_name(ENDS, template))
        reasons = thinking or template.startswith(OPENED)
        assert ("Hm." in words) == reasons
        assert words.count("</think>") == reasons
        assert words.partition("</think>")[2 if reasons else 0].strip() == "It is 2."


@pytest.mark.parametrize("template", ["qwen3", "qwen3_5_think"])
@pytest.mark.parametrize("thinking", [True, False])
def test_reasoning_is_learned_in_the_tags_of_its_template(
    tiny_model: Path, template: str, thinking: bool
):
    """What ``<think>`` is to one model is ``[THINK]`` to another."""
    from flashrun_trainer.data import labels

    tokenizer = chat_templates.tokenizer_with(template, tiny_model)
    as_usual = labels.tokenize_conversation(tokenizer, [USER], REASONED, thinking)
    text = tokenizer.chat_template
    tokenizer.chat_template = text.replace("<think>", "[THINK]").replace("</think>", "[/THINK]")
    tokenizer.add_tokens(["[THINK]", "[/THINK]"])
    in_content = [assistant("[THINK]\nHm.\n[/THINK]\n\nIt is 2."), *REASONED[1:]]
    for completion in (REASONED, in_content):
        examples = labels.tokenize_conversation(tokenizer, [USER], completion, thinking)
        for example, usual in zip(learned_turns(examples), learned_turns(as_usual), strict=True):
            for ids, usual_ids in zip(example, usual, strict=True):
                words = tokenizer.decode(ids).replace("[THINK]", "<think>")
                assert words.replace("[/THINK]", "</think>") == tokenizer.decode(usual_ids)


@pytest.mark.parametrize(
    "template", [name for name in chat_templates.ALL if not writes_calls(name)]
)
def test_a_call_that_the_template_does_not_write_is_refused(tiny_model: Path, template: str):
    from flashrun_trainer.data import labels

    tokenizer = chat_templates.tokenizer_with(template, tiny_model)
    for thinking in (False, True):
        with pytest.raises(TrainerError) as error:
            labels.tokenize_conversation(tokenizer, [USER], [call({"a": 7})], thinking)
        assert (error.value.code, error.value.reason) == (Exit.DATA, "TemplateRefused")
        assert "writes nothing of the assistant's message" in error.value.message
        assert "'tool_calls'" in error.value.message


# --- templates as Qwen's, token by token --------------------------------------------------------

# As Qwen's templates do: JSON calls in the assistant's turn, results in a turn of the user, and
# reasoning only after the last question.
QWEN = """\
{%- set ns = namespace(asked=-1) -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{%- set ns.asked = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'tool' -%}
{%- if loop.previtem.role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' -}}
{%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}
{%- elif message.role == 'assistant' -%}
{%- set text = message.content.split('</think>')[-1].lstrip('\\n') -%}
{%- set thought = message.reasoning_content or '' -%}
{%- if '</think>' in message.content -%}
{%- set thought = message.content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if loop.index0 > ns.asked and (loop.last or thought) -%}
{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- text -}}
{%- for call in message.tool_calls or [] -%}
{%- if text or not loop.first -%}{{- '\\n' -}}{%- endif -%}
{%- set named = call.function or call -%}
{{- '<tool_call>\\n' + named.name + ' ' -}}
{%- for key, value in named.arguments|items -%}{{- key + '=' + value|string -}}{%- endfor -%}
{{- '\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if not enable_thinking -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""


# Later ones open the reasoning themselves.
OPENING = QWEN.replace(
    "{%- if not enable_thinking -%}",
    "{%- if enable_thinking -%}{{- '<think>\\n' -}}{%- else -%}",
)


ASKED = "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
AGAIN_ASKED = "<|im_start|>user\nAnd again?<|im_end|>\n"
RESULT = "<|im_start|>user\n<tool_response>\nthe result\n</tool_response><|im_end|>\n"
ANSWER = "<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"
ADD = "<tool_call>\nadd a=7\n</tool_call>"
CALL = call({"a": 7})

CASES: dict[str, tuple[str, list[Message], bool, list[str]]] = {
    "an answer is learned with the end of its turn": (
        QWEN,
        [assistant("2")],
        False,
        [f"{ASKED}{ANSWER}{EMPTY}[2<|im_end|>]"],
    ),
    "with thinking on, the think tags are learned, too": (
        QWEN,
        [assistant("2")],
        True,
        [f"{ASKED}{ANSWER}[{EMPTY}2<|im_end|>]"],
    ),
    "reasoning is learned when thinking is on": (
        QWEN,
        [assistant("<think>\n1 and 1\n</think>\n\n2")],
        True,
        [f"{ASKED}{ANSWER}[<think>\n1 and 1\n</think>\n\n2<|im_end|>]"],
    ),
    "reasoning that the prompt has ended is not learned": (
        QWEN,
        [assistant("<think>\n1 and 1\n</think>\n\n2")],
        False,
        [f"{ASKED}{ANSWER}{EMPTY}[2<|im_end|>]"],
    ),
    "reasoning of earlier turns is learned with its own turn": (
        QWEN,
        [assistant("<think>\nHm.\n</think>\n\n2"), AGAIN, assistant("3", reasoning_content="So.")],
        True,
        [
            f"{ASKED}{ANSWER}[<think>\nHm.\n</think>\n\n2<|im_end|>]",
            f"{ASKED}{ANSWER}2<|im_end|>\n{AGAIN_ASKED}{ANSWER}"
            "[<think>\nSo.\n</think>\n\n3<|im_end|>]",
        ],
    ),
    "turns share an example while history stays as it was": (
        QWEN,
        [{**CALL, "reasoning_content": "Hm."}, TOOL, assistant("3", reasoning_content="So.")],
        True,
        [
            f"{ASKED}{ANSWER}[<think>\nHm.\n</think>\n\n{ADD}<|im_end|>]\n{RESULT}"
            f"{ANSWER}[<think>\nSo.\n</think>\n\n3<|im_end|>]"
        ],
    ),
    "a turn without an end of its own still teaches the end": (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
        [assistant("2"), AGAIN, assistant("3")],
        False,
        [
            "user: What is 1 plus 1?\nassistant: [2<|im_end|>]",
            "user: What is 1 plus 1?\nassistant: 2\nuser: And again?\nassistant: [3<|im_end|>]",
        ],
    ),
    "an empty turn is context": (
        QWEN,
        [assistant(""), AGAIN, assistant("2")],
        False,
        [f"{ASKED}{ANSWER}<|im_end|>\n{AGAIN_ASKED}{ANSWER}{EMPTY}[2<|im_end|>]"],
    ),
    "what the template opens itself is context": (
        OPENING,
        [assistant("<think>\nHm.\n</think>\n\n2")],
        True,
        [f"{ASKED}{ANSWER}<think>\n[Hm.\n</think>\n\n2<|im_end|>]"],
    ),
    "messages before the first answer may stand in the completion": (
        QWEN,
        [{"role": "system", "content": "Be brief."}, AGAIN, assistant("2")],
        False,
        [
            f"{ASKED}<|im_start|>system\nBe brief.<|im_end|>\n{AGAIN_ASKED}"
            f"{ANSWER}{EMPTY}[2<|im_end|>]"
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_turn_is_learned_as_it_is_generated(tiny_model: Path, case: str):
    from flashrun_trainer import model
    from flashrun_trainer.data import labels

    template, completion, thinking, expected = CASES[case]
    tokenizer = model.load_tokenizer(tiny_model)
    tokenizer.chat_template = template
    examples = labels.tokenize_conversation(tokenizer, [USER], completion, thinking)
    assert [marked(tokenizer, example) for example in examples] == expected


def test_a_token_that_would_reach_into_the_turn_is_not_learned(tiny_model: Path, tmp_path: Path):
    """The prompt ends with one newline, the turn begins with another; together they are one token.

    The server has sent the first, so the model can only generate the second.
    """
    from flashrun_trainer import model
    from flashrun_trainer.data import labels

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    pair = 500
    content["model"]["vocab"]["ĊĊ"] = pair
    content["model"]["merges"].insert(0, ["Ċ", "Ċ"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = model.load_tokenizer(tmp_path)
    tokenizer.chat_template = OPENING
    assert tokenizer("\n\n")["input_ids"] == [pair]

    completion = [assistant("2"), AGAIN, assistant("3")]
    examples = labels.tokenize_conversation(tokenizer, [USER], completion, True)
    (context, first), (_, second) = learned_turns(examples)
    newline = tokenizer("\n")["input_ids"]
    assert context == sent_by_a_server(tokenizer, [USER], True, [], parts=False)
    assert context[-1:] == newline
    for turn, words in ((first, "2"), (second, "3")):
        assert turn == newline + tokenizer(f"</think>\n\n{words}<|im_end|>")["input_ids"]


def test_examples_are_cut_at_a_length(tiny_model: Path):
    from flashrun_trainer import model
    from flashrun_trainer.data import labels

    tokenizer = model.load_tokenizer(tiny_model)
    (whole,) = labels.tokenize_conversation(tokenizer, [USER], [assistant("1 2 3")], False)
    length = len(whole.input_ids)
    assert labels.truncate(whole, length) == whole
    shorter = labels.truncate(whole, length - 1)
    assert (len(shorter.input_ids), len(shorter.labels), shorter.cut) == (
        length - 1,
        length - 1,
        True,
    )


WEIGHED: dict[str, tuple[int, int, list[str]]] = {
    "the first": (0, 1, [f"{ASKED}{ANSWER}2<|im_end|>\n{AGAIN_ASKED}{ANSWER}{EMPTY}[3<|im_end|>]"]),
    "the last": (1, 0, [f"{ASKED}{ANSWER}{EMPTY}[2<|im_end|>]"]),
}


@pytest.mark.parametrize("case", WEIGHED)
def test_a_turn_of_weight_0_is_context(tiny_model: Path, case: str):
    from flashrun_trainer import model
    from flashrun_trainer.data import labels

    first, last, expected = WEIGHED[case]
    tokenizer = model.load_tokenizer(tiny_model)
    completion = [assistant("2", weight=first), AGAIN, assistant("3", weight=last)]
    examples = labels.tokenize_conversation(tokenizer, [USER], completion, False)
    assert [marked(tokenizer, example) for example in examples] == expected


CONTINUED: dict[str, tuple[list[Message], bool, str]] = {
    "one turn": ([assistant("2.")], False, "<think>\n\n</think>\n\nIt is [2.<|im_end|>]"),
    "another turn follows": (
        [assistant("2."), AGAIN, assistant("3")],
        False,
        "<think>\n\n</think>\n\nIt is [2.<|im_end|>]",
    ),
    "reasoning that has begun": (
        [assistant("</think>\n\n2")],
        True,
        "<think>\nIt is [\n</think>\n\n2<|im_end|>]",
    ),
}


@pytest.mark.parametrize("case", CONTINUED)
def test_a_turn_that_the_prompt_begins_is_continued(tiny_model: Path, case: str):
    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template, labels

    completion, thinking, expected = CONTINUED[case]
    tokenizer = model.load_tokenizer(tiny_model)
    prompt = [USER, assistant("<think>\nIt is " if thinking else "It is ")]
    examples = labels.tokenize_conversation(tokenizer, prompt, completion, thinking)
    assert marked(tokenizer, examples[0]) == f"{ASKED}{ANSWER}{expected}"
    asked = chat_template.render_prompt(tokenizer, prompt, thinking)
    assert tokenizer.decode(learned_turns(examples)[0][0]) == asked
    assert len(examples) == len(learned_turns(examples)) == (len(completion) + 1) // 2
    if len(completion) > 1:
        assert marked(tokenizer, examples[1]) == (
            f"{ASKED}{ANSWER}It is 2.<|im_end|>\n{AGAIN_ASKED}{ANSWER}{EMPTY}[3<|im_end|>]"
        )


def test_tools_reach_the_template(tiny_model: Path):
    from flashrun_trainer.data import labels, tool_definitions

    tokenizer = chat_templates.tokenizer_with("qwen3", tiny_model)
    tools = tool_definitions.read_tools([{"name": "add", "parameters": {"type": "object"}}])
    completion = [assistant("1"), AGAIN, assistant("2")]
    examples = labels.tokenize_conversation(tokenizer, [USER], completion, False, tools)
    for context, _ in learned_turns(examples):
        assert '{"name": "add", "parameters": {"type": "object"}}' in tokenizer.decode(context)
