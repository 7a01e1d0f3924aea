"""Conversations in the formats that people use: what each key means, and what is refused."""

import json
import re
from typing import Any

import pytest
from freesolo.environments import EnvironmentMultiTurn, EnvironmentSingleTurn

from flashrun_trainer.data import conversations, dataset
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.messages import is_learnable

USER = {"role": "user", "content": "What is 1 plus 1?"}
SYSTEM = {"role": "system", "content": "Be brief."}
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def assistant(content: Any = "2", **others: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **others}


def call(arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "add", "arguments": arguments}}


MESSAGES: dict[str, tuple[Any, Any]] = {
    "a plain one": (assistant(), assistant()),
    "spaces around the role": (
        {"role": " user ", "content": "x"},
        {"role": "user", "content": "x"},
    ),
    "parts of text": (
        assistant([{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]),
        assistant("12"),
    ),
    "a part of reasoning": (
        assistant([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "2"}]),
        assistant(reasoning_content="Hm."),
    ),
    "no content": (assistant(None), assistant("")),
    "reasoning_content": (assistant(reasoning_content="Hm."), assistant(reasoning_content="Hm.")),
    "reasoning": (assistant(reasoning="Hm."), assistant(reasoning_content="Hm.")),
    "thinking": (assistant(thinking="Hm."), assistant(reasoning_content="Hm.")),
    "the same reasoning twice": (
        assistant(thinking="Hm.", reasoning="Hm."),
        assistant(reasoning_content="Hm."),
    ),
    "reasoning of nothing": (assistant(reasoning="", thinking=None), assistant()),
    "weight 0": (assistant(weight=0), assistant(weight=0)),
    "weight 1": (assistant(weight=1), assistant()),
    "weight 0.0": (assistant(weight=0.0), assistant(weight=0)),
    "train false": (assistant(train=False), assistant(weight=0)),
    "train true": (assistant(train=True), assistant()),
    "loss false": (assistant(loss=False), assistant(weight=0)),
    "weight null": (assistant(weight=None), assistant()),
    "a user's weight of 0": ({**USER, "weight": 0}, USER),
    "arguments as an object": (
        assistant("", tool_calls=[call({"b": 1, "a": "é"})]),
        assistant("", tool_calls=[call({"b": 1, "a": "é"})]),
    ),
    "arguments as JSON text": (
        assistant(None, tool_calls=[call('{"b": 1, "a": "é"}')]),
        assistant("", tool_calls=[call({"b": 1, "a": "é"})]),
    ),
    "no arguments as empty text": (
        assistant("", tool_calls=[call("")]),
        assistant("", tool_calls=[call({})]),
    ),
    "no arguments as null": (
        assistant("", tool_calls=[call(None)]),
        assistant("", tool_calls=[call({})]),
    ),
    "a call without its wrapper": (
        assistant("", tool_calls=[{"name": "add", "arguments": "{}", "id": "1"}]),
        assistant("", tool_calls=[{**call({}), "id": "1"}]),
    ),
    "function_call": (
        assistant(None, function_call={"name": "add", "arguments": '{"a": 1}'}),
        assistant("", tool_calls=[call({"a": 1})]),
    ),
    "the result of a function_call": (
        {"role": "function", "name": "add", "content": "2"},
        {"role": "tool", "name": "add", "content": "2"},
    ),
    "a developer": ({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}),
    "keys that a template may read": (assistant(mood="glad"), assistant(mood="glad")),
    "keys without a value": (assistant(audio=None, refusal=None), assistant()),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_message_is_read_in_whatever_words_it_is_written(case: str):
    written, expected = MESSAGES[case]
    [read] = conversations.read_messages([written])
    assert read == expected
    assert json.dumps(read, sort_keys=True) == json.dumps(
        expected, sort_keys=True
    )  # 0 is not False


REFUSED: dict[str, tuple[Any, str]] = {
    "text": ("hello", "a message must be an object with role"),
    "another role": ({"role": "robot", "content": "x"}, "a message must be an object with role"),
    "another format": ({"from": "human", "value": "x"}, "a message must be an object with role"),
    "no content": ({"role": "user", "text": "x"}, "a message has no content; it has role, text"),
    "a number": (assistant(4), "the content of a message must be text, not 4"),
    "a picture": (assistant([{"type": "image"}]), "parts that are not text"),
    "a weight between 0 and 1": (assistant(weight=0.5), "weight is 0.5, and must be 0, 1"),
    "a weight of text": (assistant(weight="0"), "weight is '0', and must be 0, 1"),
    "weights that differ": (assistant(weight=0, train=True), "weight and train of a message"),
    "a learned question": ({**USER, "weight": 1}, "only messages of the assistant are learned"),
    "two kinds of reasoning": (
        assistant(reasoning="a", thinking="b"),
        "different reasoning in reasoning and thinking",
    ),
    "reasoning of a user": ({**USER, "reasoning": "Hm."}, "a message of the user has reasoning"),
    "reasoning that is a list": (assistant(reasoning=["Hm."]), "reasoning must be text"),
    "a call of a user": (
        {**USER, "tool_calls": [call({})]},
        "a message of the user has tool_calls",
    ),
    "arguments that are a list": (
        assistant("", tool_calls=[call([1])]),
        "the arguments of add must be an object or its JSON text, not [1]",
    ),
    "arguments of broken JSON": (
        assistant("", tool_calls=[call('{"a": ')]),
        "the arguments of add are not valid JSON",
    ),
    "arguments under another name": (
        assistant("", tool_calls=[{"function": {"name": "add", "parameters": {"a": 1}}}]),
        "the call of add has parameters: name this key arguments",
    ),
    "a call without a name": (assistant("", tool_calls=[{}]), "must have the name of its function"),
    "calls that are no list": (assistant("", tool_calls="add()"), "tool_calls must be a list"),
    "both kinds of calls": (
        assistant("", tool_calls=[call({})], function_call={"name": "add"}),
        "tool_calls and function_call: keep tool_calls",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_message_cannot_mean_is_refused_by_its_key(case: str):
    written, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        conversations.read_messages([USER, written])


OUTPUTS: dict[str, tuple[Any, list[Any]]] = {
    "text": (" 2\n", [assistant()]),
    "nothing": (None, [assistant("")]),
    "a list of messages": (
        [assistant("1"), USER, assistant()],
        [assistant("1"), USER, assistant()],
    ),
    "messages": ({"messages": [assistant()]}, [assistant()]),
    "messages and tools": ({"messages": [assistant()], "tools": [ADD], "x": None}, [assistant()]),
    "one message": (assistant(weight=0), [assistant(weight=0)]),
    "a list of numbers": ([1, 2], [assistant("[\n  1,\n  2\n]")]),
    "a table with a list of messages that are text": (
        {"messages": ["hi"], "count": 1},
        [assistant('{\n  "messages": [\n    "hi"\n  ],\n  "count": 1\n}')],
    ),
    "its own order and letters": (
        {"reasoning": "gauche ou droite", "answer": "à gauche"},
        [assistant('{\n  "reasoning": "gauche ou droite",\n  "answer": "à gauche"\n}')],
    ),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_is_a_conversation_or_text(case: str):
    output, expected = OUTPUTS[case]
    assert conversations.read_output(output) == expected


BAD_OUTPUTS = {
    "a key beside messages": ({"messages": [assistant()], "mood": 1}, "has the key 'mood'"),
    "no messages": ({"messages": []}, "must be a list that is not empty"),
    "messages of text": ({"messages": "hello"}, "messages must be a list"),
    "a message without a role": ([assistant(), {"content": "3"}], "message 2 of the output"),
    "another format": ([{"from": "gpt", "value": "2"}], "the keys 'from' and 'value'"),
    "another format with its key": (
        {"conversations": [{"from": "human", "value": "?"}]},
        "the keys 'from' and 'value'",
    ),
}


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_an_output_that_is_half_a_conversation_is_refused(case: str):
    output, sentence = BAD_OUTPUTS[case]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        conversations.read_output(output)


class Plain(EnvironmentSingleTurn):
    """An environment that does nothing of its own."""

    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def score_response(self, example, response_text): ...


def environment_of(*rows: Any, sdk: Any = None) -> Environment:
    examples = dataset.load_examples(None, {"records": list(rows)}, None)
    return Environment(sdk or Plain(), examples, "")


WHOLE = {"messages": [SYSTEM, USER, assistant(weight=0), USER, assistant("4")], "tools": [ADD]}


def test_a_row_of_messages_is_a_conversation_with_its_own_prompt_and_tools():
    environment = environment_of(WHOLE)
    [example] = environment.examples
    assert environment.conversation(example) == conversations.Conversation(
        [SYSTEM, USER], [assistant(weight=0), USER, assistant("4")], "row 1", (ADD,)
    )
    assert list(map(is_learnable, environment.completion(example))) == [False, False, True]
    # The environment's code gets a question, an answer, and the row as it is.
    assert example.input == USER["content"]
    assert example.record == WHOLE


def test_the_single_plain_answer_of_a_row_of_messages_is_its_output():
    [example] = environment_of({"messages": [USER, assistant()]}).examples
    assert example.output == "2"
    [example] = environment_of({"messages": [USER]}).examples
    assert example.output is None


def test_an_environment_of_several_turns_opens_a_row_of_messages_itself():
    class Game(EnvironmentMultiTurn):
        def start_episode(self, example, prompt_text):
            return [{"role": "user", "content": f"Go: {example.input}"}]

        def max_episode_turns(self, example): ...

        def step_episode(self, example, messages, assistant_response): ...

        def score_episode(self, example, episode): ...

    environment = environment_of(WHOLE, sdk=Game())
    prompt = environment.prompt(environment.examples[0])
    assert prompt == [{"role": "user", "content": f"Go: {USER['content']}"}]


def test_an_environment_that_builds_its_completions_is_asked_for_them():
    class Own(Plain):
        def sft_completion(self, example):
            return [assistant("mine")]

    environment = environment_of({"input": "x", "output": "2"}, sdk=Own())
    assert environment.completion(environment.examples[0]) == [assistant("mine")]


TOOLS: dict[str, Any] = {
    "a list": {"tools": [ADD]},
    "JSON text": {"tools": json.dumps([ADD])},
    "without a wrapper": {"tools": [ADD["function"]]},
    "functions": {"functions": [ADD["function"]]},
}


@pytest.mark.parametrize("case", TOOLS)
@pytest.mark.parametrize("place", ["row", "output", "both"])
def test_tools_are_read_from_a_row_and_from_its_output(case: str, place: str):
    own = TOOLS[case]
    output = {"messages": [assistant()], **(own if place != "row" else {})}
    row = {"input": "x", "output": output, **(own if place != "output" else {})}
    environment = environment_of(row)
    assert environment.tools(environment.examples[0]) == (ADD,)


def test_tools_that_contradict_each_other_are_refused():
    output = {"messages": [assistant()], "tools": [{"name": "subtract"}]}
    with pytest.raises(ValueError, match="differ: keep one"):
        conversations.row_tools({"tools": [ADD]}, output)
    with pytest.raises(ValueError, match="tools and functions are both set"):
        conversations.row_tools({"tools": [ADD], "functions": [ADD]}, None)


def test_what_comes_before_the_first_answer_belongs_to_the_prompt():
    joined = conversations.join([SYSTEM], [USER, assistant("1"), USER, assistant()], "row 1")
    assert joined.prompt == [SYSTEM, USER]
    assert joined.completion == [assistant("1"), USER, assistant()]


@pytest.mark.parametrize("record", [{"prompt": "x", "completion": "y"}, {"input": None}])
def test_a_row_that_has_neither_an_input_nor_messages_is_refused_with_its_keys(record: Any):
    with pytest.raises(ValueError, match=f"no input; it has {', '.join(record)}"):
        conversations.read_row(record)


def test_an_input_that_is_a_table_keeps_its_order_and_letters():
    [example] = environment_of({"input": {"b": "é", "a": 1}}).examples
    assert example.input == '{\n  "b": "é",\n  "a": 1\n}'
    assert example.record == {"input": {"b": "é", "a": 1}}


def test_the_digest_depends_on_the_order_of_keys_and_on_tools():
    rows = [
        {"input": "x", "output": {"a": 1, "b": 2}},
        {"input": "x", "output": {"b": 2, "a": 1}},
        {"input": "x", "output": {"b": 2, "a": 1}, "tools": [ADD]},
    ]
    assert len({environment_of(row).digest for row in rows}) == len(rows)


def talk(*completion: Any, prompt: Any = USER, name: str = "row 1") -> conversations.Conversation:
    return conversations.join([prompt], list(completion), name)


def test_keys_of_messages_that_neither_trainer_nor_template_reads_are_named_with_their_row():
    talks = [talk(assistant()), talk(assistant(mood="glad", tone="low"), name="row 2")]
    remark = conversations.unread_remark(talks)
    assert remark.startswith("nobody reads these keys of messages: 'mood' (row 2), 'tone' (row 2)")
    assert "tone" not in conversations.unread_remark(talks, "{{ message.tone }}")
    assert conversations.unread_remark(talks[:1]) == ""


def test_keys_of_rows_that_other_formats_know_are_named_unless_the_code_reads_them():
    rows = [("row 1", {"input": "x", "level": 3}), ("row 2", {"input": "x", "system": "Be brief."})]
    assert "'system' (row 2)" in conversations.unread_row_remark(rows, "")
    assert conversations.unread_row_remark(rows, 'example.record["system"]') == ""
    assert conversations.unread_row_remark([("row 1", WHOLE)], "") == ""


ALMOST = {
    "turns without a role": ([{"content": "?"}, {"content": "2"}], True),
    "messages of text": ({"messages": ["hi"], "count": 1}, True),
    "a conversation as JSON text": (json.dumps([USER, assistant()]), True),
    "a table": ({"answer": 2}, False),
    "a list of numbers": ([1, 2], False),
    "a list of tables": ([{"name": "Ann"}, {"name": "Bob"}], False),
    "text": ("[not JSON", False),
}


@pytest.mark.parametrize("case", ALMOST)
def test_a_conversation_that_is_read_as_json_text_is_warned_about(case: str):
    output, expected = ALMOST[case]
    talks = [talk(assistant()), talk(*conversations.read_output(output), name="row 2")]
    assert ("1 examples (row 2 first)" in conversations.json_remark(talks)) == expected


def test_a_prompt_that_is_the_json_of_messages_is_warned_about():
    [example] = environment_of({"input": [USER]}).examples
    prompt = {"role": "user", "content": example.input}
    assert "row 1 first" in conversations.json_remark([talk(assistant(), prompt=prompt)])
