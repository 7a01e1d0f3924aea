"""Which tokens SFT learns: the assistant's words and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.pods import Workshop

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
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[2<|im_end|>]\n",
    ),
    "with thinking on, the think tags are learned, too": (
        [USER],
        [assistant("2")],
        True,
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n[<think>\n\n</think>\n\n2<|im_end|>]\n",
    ),
    "reasoning is learned when thinking is on": (
        [USER],
        [assistant("<think>\n1 and 1\n</think>\n\n2")],
        True,
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n[<think>\n1 and 1\n</think>\n\n2<|im_end|>]\n",
    ),
    "a system prompt is context": (
        [{"role": "system", "content": "Be brief."}, USER],
        [assistant("2")],
        False,
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[2<|im_end|>]\n",
    ),
    "between two turns of the assistant, what others say is context": (
        [USER],
        [assistant("I count."), TOOL, assistant("2")],
        True,
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n[I count.<|im_end|>]\n"
        "<|im_start|>tool\n2<|im_end|>\n"
        "<|im_start|>assistant\n[<think>\n\n</think>\n\n2<|im_end|>]\n",
    ),
    "a turn in the middle is learned, whatever its last letter": (
        [USER],
        [assistant("#%"), USER, assistant("#")],
        False,
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n[#%<|im_end|>]\n"
        "<|im_start|>user\nWhat is 1 plus 1?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[#<|im_end|>]\n",
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
    from flashrun_trainer.data import chat_template

    prompt, completion, thinking, expected = CASES[case]
    row = chat_template.tokenize_conversation(tokenizer, prompt, completion, thinking)
    assert marked(tokenizer, row) == expected


WEIGHED = {
    "the first": (0, 1, "2<|im_end|>\n", "[3<|im_end|>]\n"),
    "the last": (1, 0, "[2<|im_end|>]\n", "3<|im_end|>\n"),
}


@pytest.mark.parametrize("case", WEIGHED)
def test_a_turn_of_weight_0_is_context(tokenizer: Any, case: str):
    from flashrun_trainer.data import chat_template, conversations

    first, last, *expected = WEIGHED[case]
    completion = conversations.read_messages(
        [{**assistant("2"), "weight": first}, USER, {**assistant("3"), "weight": last}]
    )
    row = chat_template.tokenize_conversation(tokenizer, [USER], completion, False)
    text = marked(tokenizer, row)
    turns = [turn.split("<|im_start|>")[0] for turn in text.split("<|im_start|>assistant\n")[1:]]
    assert [turn.removeprefix("<think>\n\n</think>\n\n") for turn in turns] == expected


CONTINUED = {
    "one turn": (
        [assistant("2.")],
        False,
        "<think>\n\n</think>\n\nIt is [2.<|im_end|>]\n",
    ),
    "another turn follows": (
        [assistant("2."), USER, assistant("3")],
        False,
        "It is [2.<|im_end|>]\n",
    ),
    "reasoning that has begun": (
        [assistant("</think>\n\n2")],
        True,
        "<think>\nIt is [\n</think>\n\n2<|im_end|>]\n",
    ),
}


@pytest.mark.parametrize("case", CONTINUED)
def test_a_turn_that_the_prompt_begins_is_continued(tokenizer: Any, case: str):
    from flashrun_trainer.data import chat_template

    completion, thinking, expected = CONTINUED[case]
    beginning = assistant("<think>\nIt is " if thinking else "It is ")
    prompt = [USER, beginning]
    row = chat_template.tokenize_conversation(tokenizer, prompt, completion, thinking)
    first = marked(tokenizer, row).split("<|im_start|>assistant\n")[1]
    assert first.split("<|im_start|>")[0] == expected
    # What is asked for later is what was context here.
    asked = chat_template.render(tokenizer, prompt, thinking, add_generation_prompt=True)
    assert asked.endswith("It is ")
    if len(completion) == 1:
        assert marked(tokenizer, row).startswith(asked)


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
ANSWER = "<|im_start|>assistant\n"

CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
}

TOOLS = {
    "a tool call is learned, its result is not, the answer is": (
        QWEN,
        [CALL, TOOL, assistant("It is 2.")],
        False,
        f"{ASKED}{ANSWER}[<tool_call>\nadd a=1\n</tool_call><|im_end|>]\n"
        "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        f"{ANSWER}<think>\n\n</think>\n\n[It is 2.<|im_end|>]\n",
    ),
    "what is said before a call is learned with it": (
        QWEN,
        [{**CALL, "content": "I add."}, TOOL, TOOL, assistant("2")],
        True,
        f"{ASKED}{ANSWER}[I add.\n<tool_call>\nadd a=1\n</tool_call><|im_end|>]\n"
        "<|im_start|>user\n<tool_response>\n2\n</tool_response>\n<tool_response>\n2\n"
        "</tool_response><|im_end|>\n"
        f"{ANSWER}[<think>\n\n</think>\n\n2<|im_end|>]\n",
    ),
    "reasoning before a call is learned, as a field of the message, too": (
        QWEN,
        [{**CALL, "reasoning_content": "Hm."}, TOOL, assistant("<think>\nSo.\n</think>\n\n2")],
        True,
        f"{ASKED}{ANSWER}[<think>\nHm.\n</think>\n\n<tool_call>\nadd a=1\n</tool_call><|im_end|>]"
        "\n<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        f"{ANSWER}[<think>\nSo.\n</think>\n\n2<|im_end|>]\n",
    ),
    "a call may be the last word": (
        QWEN,
        [CALL],
        False,
        f"{ASKED}{ANSWER}<think>\n\n</think>\n\n[<tool_call>\nadd a=1\n</tool_call><|im_end|>]\n",
    ),
    "reasoning of earlier turns is left out by the template, and not learned": (
        QWEN,
        [assistant("<think>\nHm.\n</think>\n\n2"), USER, assistant("<think>\nSo.\n</think>\n\n3")],
        True,
        f"{ASKED}{ANSWER}[2<|im_end|>]\n{ASKED}{ANSWER}[<think>\nSo.\n</think>\n\n3<|im_end|>]\n",
    ),
    "of two turns in a row, both are learned, and nothing between them": (
        QWEN,
        [assistant("I count."), assistant("2")],
        True,
        f"{ASKED}{ANSWER}[I count.<|im_end|>]\n{ANSWER}[<think>\n\n</think>\n\n2<|im_end|>]\n",
    ),
    "a result is not learned, either, when another question has changed all before it": (
        QWEN,
        [{**CALL, "reasoning_content": "Hm."}, TOOL, assistant("It is 2."), USER, assistant("2")],
        True,
        f"{ASKED}{ANSWER}[<tool_call>\nadd a=1\n</tool_call><|im_end|>]\n"
        "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        f"{ANSWER}[It is 2.<|im_end|>]\n"
        f"{ASKED}{ANSWER}[<think>\n\n</think>\n\n2<|im_end|>]\n",
    ),
    "a mark at the end of a turn is learned when the template trims what follows it": (
        QWEN.replace("{{- text -}}", "{{- text|trim -}}"),
        [assistant("2 #\n"), USER, assistant("2")],
        True,
        f"{ASKED}{ANSWER}[2 #<|im_end|>]\n{ASKED}{ANSWER}[<think>\n\n</think>\n\n2<|im_end|>]\n",
    ),
    "what the template opens itself is context": (
        OPENING,
        [assistant("<think>\nHm.\n</think>\n\n2")],
        True,
        f"{ASKED}{ANSWER}<think>\n[Hm.\n</think>\n\n2<|im_end|>]\n",
    ),
    "and so is an empty reasoning that it writes": (
        OPENING,
        [assistant("2"), USER, assistant("3")],
        False,
        f"{ASKED}{ANSWER}[2<|im_end|>]\n{ASKED}{ANSWER}<think>\n\n</think>\n\n[3<|im_end|>]\n",
    ),
}


@pytest.mark.parametrize("case", TOOLS)
def test_calls_and_reasoning_are_learned_where_the_template_shows_them(tiny_model: Path, case: str):
    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template, conversations

    template, completion, thinking, expected = TOOLS[case]
    tokenizer = model.load_tokenizer(tiny_model)
    tokenizer.chat_template = template
    prompt, said = conversations.read_messages([USER]), conversations.read_messages(completion)
    assert (
        marked(tokenizer, chat_template.tokenize_conversation(tokenizer, prompt, said, thinking))
        == expected
    )


# The templates of the models, from TRL.
TEMPLATES = ("qwen3", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6")

TALK = [
    {**CALL, "reasoning_content": "Hm."},
    TOOL,
    assistant("It is 2."),
    {"role": "user", "content": "Again, please."},
    {**CALL, "content": "I add."},
    TOOL,
    assistant("<think>\nSo.\n</think>\n\nIt is 2 again."),
]


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_assistants_turns_of_a_long_talk_are_learned_with_every_template_of_qwen(
    tiny_model: Path, template: str, thinking: bool
):
    import trl

    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template, conversations

    tokenizer = model.load_tokenizer(tiny_model)
    folder = Path(trl.__file__).parent / "chat_templates"
    tokenizer.chat_template = (folder / f"{template}.jinja").read_text()
    prompt, said = conversations.read_messages([USER]), conversations.read_messages(TALK)
    text = marked(tokenizer, chat_template.tokenize_conversation(tokenizer, prompt, said, thinking))
    context, *turns = (part.split("]", 1) for part in text.split("["))
    learned = [turn for turn, _ in turns]
    for turn, words in zip(learned, ("add", "It is 2.", "I add.", "It is 2 again."), strict=True):
        assert words in turn
        assert turn.endswith("<|im_end|>")
        assert turn.count("<|im_end|>") == 1
        assert "<|im_start|>" not in turn
        assert "tool_response" not in turn
    assert "1 plus 1?" in context[0]


def test_a_prompt_that_is_only_a_system_message_is_joined_with_what_follows(tiny_model: Path):
    import trl

    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template, conversations

    tokenizer = model.load_tokenizer(tiny_model)
    folder = Path(trl.__file__).parent / "chat_templates"
    tokenizer.chat_template = (folder / "qwen3_5_think.jinja").read_text()
    system = {"role": "system", "content": "Be brief."}
    with pytest.raises(TrainerError):
        chat_template.render(tokenizer, [system], False, add_generation_prompt=True)
    joined = conversations.join([system], [USER, assistant("2")], "row 1")
    row = chat_template.tokenize_conversation(tokenizer, joined.prompt, joined.completion, False)
    assert marked(tokenizer, row).endswith("</think>\n\n[2<|im_end|>]\n")


def test_tools_reach_the_template(tiny_model: Path):
    import trl

    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template, conversations

    tokenizer = model.load_tokenizer(tiny_model)
    folder = Path(trl.__file__).parent / "chat_templates"
    tokenizer.chat_template = (folder / "qwen3.jinja").read_text()
    tools = conversations.read_tools([{"name": "add", "parameters": {"type": "object"}}])
    for completion in ([assistant("2")], [assistant("1"), USER, assistant("2")]):
        row = chat_template.tokenize_conversation(tokenizer, [USER], completion, False, tools)
        context, *learned = marked(tokenizer, row).split("[2<")
        assert '{"name": "add", "parameters": {"type": "object"}}' in context
        assert len(learned) == 1


ENDS = {
    "gemma3": ("<end_of_turn>", "<eos>", "<start_of_turn>"),
    "phi3": ("<|end|>", "<|endoftext|>", "<|assistant|>"),
    "llama3": ("<|eot_id|>", "<|eot_id|>", "<|start_header_id|>"),
    "qwen2_5": ("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
}


@pytest.mark.parametrize("template", ENDS)
def test_the_end_of_a_turn_is_learned_whatever_ends_a_sequence(tiny_model: Path, template: str):
    import trl

    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template, conversations

    end, eos, start = ENDS[template]
    tokenizer = model.load_tokenizer(tiny_model)
    tokenizer.add_special_tokens({"additional_special_tokens": [end, start]})
    tokenizer.add_special_tokens({"eos_token": eos, "bos_token": "<|endoftext|>"})
    folder = Path(trl.__file__).parent / "chat_templates"
    tokenizer.chat_template = (folder / f"{template}.jinja").read_text()
    question: dict[str, Any] = {"role": "user", "content": "And?"}
    for said in ([assistant("2")], [assistant("1"), question, assistant("2")]):
        row = chat_template.tokenize_conversation(
            tokenizer, [USER], conversations.read_messages(said), False
        )
        learned = [part.partition("]")[0] for part in marked(tokenizer, row).split("[")[1:]]
        own = [message["content"] for message in said if message["role"] == "assistant"]
        assert [text.strip() for text in learned] == [content + end for content in own]


def test_the_error_of_a_chat_template_is_quoted(workshop: Workshop, tiny_model: Path):
    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template

    tokenizer = model.load_tokenizer(tiny_model)
    tokenizer.chat_template = "{{ raise_exception('No user query found in messages.') }}"
    with pytest.raises(TrainerError) as error:
        chat_template.tokenize_messages(
            tokenizer, [{"role": "system", "content": "x"}], False, add_generation_prompt=True
        )
    assert (error.value.code, error.value.reason) == (Exit.DATA, "TemplateRefused")
    assert "that end with {'role': 'system', 'content': 'x'}: " in error.value.message
    assert "No user query found in messages." in error.value.message
