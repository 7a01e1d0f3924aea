"""Chat messages in the formats that people use: what each key means, and what is refused."""

import json
import re
from typing import Any

import pytest

from flashrun_trainer.data import message_reading
from tests.trainer.written_rows import USER, assistant, call

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
    "no arguments as white space": (
        assistant("", tool_calls=[call(" \n")]),
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
    [read] = message_reading.read_messages([written])
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
        message_reading.read_messages([USER, written])
