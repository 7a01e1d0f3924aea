"""Rows in the formats that people have, and what is wrong with those that are left out."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashrun.cli.environments.row_formats import (
    KNOWN_KEYS,
    RowFormat,
    RowRefusal,
    read_formatted_row,
)
from flashrun_trainer.data import conversations
from flashrun_trainer.data.messages import is_learnable

pytest.importorskip("freesolo", reason="the environment SDK is an extra")

USER = {"role": "user", "content": "2 + 2?"}
ANSWER = {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"b": 2, "a": 2}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}


def turn(sender: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"from": sender, "value": value, **more}


READ: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("chat messages", {"messages": [SYSTEM, USER, ANSWER]}, {"messages": [SYSTEM, USER, ANSWER]}),
    (
        "messages as JSON text, as a table has them",
        {"messages": json.dumps([USER, ANSWER])},
        {"messages": [USER, ANSWER]},
    ),
    (
        "messages with tools",
        {"messages": [USER, CALLING], "tools": json.dumps([TOOL["function"]])},
        {"messages": [USER, CALLING], "tools": [TOOL]},
    ),
    (
        "calls as JSON text keep the order of their arguments",
        {"messages": [USER, {"role": "assistant", "tool_calls": [
            {"function": {"name": "add", "arguments": '{"b": 2, "a": 2}'}}]}]},
        {"messages": [USER, CALLING]},
    ),
    (
        "ShareGPT with a system text of the row",
        {"conversations": [turn("human", "2 + 2?"), turn("gpt", "4")], "system": "Be brief."},
        {"messages": [SYSTEM, USER, ANSWER]},
    ),
    (
        "ShareGPT with tools",
        {"conversations": [
            turn("human", "2 + 2?"),
            turn("function_call", '{"name": "add", "arguments": {"b": 2, "a": 2}}'),
            turn("observation", "4"),
            turn("gpt", "4", weight=0),
            turn("gpt", "4"),
        ]},
        {"messages": [
            USER, CALLING, {"role": "tool", "content": "4"}, {**ANSWER, "weight": 0}, ANSWER,
        ]},
    ),
    ("conversations of messages", {"conversations": [USER, ANSWER]}, {"messages": [USER, ANSWER]}),
    ("texts", {"prompt": " 2 + 2? ", "completion": "4\n"}, {"input": "2 + 2?", "output": "4"}),
    ("a number", {"prompt": "2 + 2?", "completion": 4}, {"input": "2 + 2?", "output": 4}),
    (
        "lists of messages",
        {"prompt": [SYSTEM, USER], "completion": [ANSWER]},
        {"input": [SYSTEM, USER], "output": {"messages": [ANSWER]}},
    ),
    (
        "one message as an answer",
        {"prompt": "2 + 2?", "completion": ANSWER},
        {"input": "2 + 2?", "output": {"messages": [ANSWER]}},
    ),
    (
        "an instruction with input",
        {"instruction": "Add.", "input": "2 + 2", "output": "4"},
        {"input": "Add.\n\n2 + 2", "output": "4"},
    ),
    (
        "an instruction without input",
        {"instruction": "Add 2 to 2.", "input": "", "output": "4"},
        {"input": "Add 2 to 2.", "output": "4"},
    ),
    (
        "an instruction with history",
        {"instruction": "2 + 2?", "output": "4", "system": "Be brief.", "history": [["1?", "1"]]},
        {"input": [
            SYSTEM, {"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}, USER,
        ], "output": "4"},
    ),
    ("rows of our own", {"input": "2 + 2?", "output": "4"}, {"input": "2 + 2?", "output": "4"}),
    (
        "null and an empty list stand for what a row does not have",
        {"messages": [], "conversations": None, "prompt": "2 + 2?", "completion": "4"},
        {"input": "2 + 2?", "output": "4"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "read"), [case[1:] for case in READ], ids=[c[0] for c in READ])
def test_a_row_is_read(row: dict[str, Any], read: dict[str, Any]) -> None:
    assert read_formatted_row(row).row == read


def test_the_order_of_arguments_is_kept() -> None:
    text = json.dumps(read_formatted_row({"messages": [USER, CALLING]}).row)
    assert text.index('"b"') < text.index('"a"')


REFUSED: list[tuple[Any, str, str]] = [
    (["no object"], "", "must be an object"),
    ({}, "", "it has no value"),
    ({"question": "2 + 2?", "answer": "4"}, "", "it has question, answer"),
    ({"prompt": "2 + 2?"}, "completion", "missing or null beside prompt"),
    ({"prompt": "2 + 2?", "completion": None}, "completion", "missing or null beside prompt"),
    ({"prompt": "2 + 2?", "completion": " "}, "completion", "no answer"),
    ({"prompt": "", "completion": "4"}, "prompt", "nothing to answer"),
    ({"prompt": 4, "completion": "4"}, "prompt", "must be text or a list of messages"),
    ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, "chosen", "compares two answers"),
    ({"prompt": "2 + 2?", "completion": "5", "label": False}, "label", "not to be learned"),
    ({"prompt": "2 + 2?", "completion": "5", "weight": 0}, "weight", "not to be learned"),
    ({"prompt": "2 + 2?", "completion": math.nan}, "completion", "JSON"),
    ({"prompt": "\ud800", "completion": "4"}, "prompt", "not valid Unicode"),
    ({"messages": "2 + 2?"}, "messages", "not valid JSON"),
    ({"messages": [ANSWER]}, "messages", "nothing to answer"),
    ({"messages": [SYSTEM, ANSWER]}, "messages", "nothing to answer"),
    ({"messages": [USER]}, "messages", "no answer"),
    ({"messages": [USER, {**ANSWER, "weight": 0}]}, "messages", "no answer"),
    ({"messages": [USER, {"role": "bard", "content": "4"}]}, "messages", "'bard'"),
    ({"messages": [USER, ANSWER], "tools": [{"x": 1}]}, "tools", "a tool must be an object"),
    ({"messages": [SYSTEM, USER, ANSWER], "system": "More."}, "system", "both"),
    ({"conversations": [turn("bard", "4")]}, "conversations", "turn 1 is from 'bard'"),
    ({"conversations": [turn("human", None)]}, "conversations", "no answer|nothing to answer"),
    ({"conversations": [turn("function_call", "add")]}, "conversations", "not valid JSON"),
    ({"instruction": "x", "output": "y", "history": ["z"]}, "history", "pairs of texts"),
    ({"instruction": [USER], "input": "x", "output": "y"}, "input", "cannot have input"),
    ({"prompt": "x", "completion": {"messages": [ANSWER], "x": 1}}, "completion", "the key 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "key", "why"), REFUSED)
def test_a_row_that_cannot_be_learned_names_its_key(row: Any, key: str, why: str) -> None:
    with pytest.raises(RowRefusal, match=why) as caught:
        read_formatted_row(row)
    assert caught.value.key == key


def test_a_row_that_is_nested_too_deeply_is_refused() -> None:
    deep: Any = "4"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RowRefusal, match="nested too deeply"):
        read_formatted_row({"prompt": "x", "completion": deep})


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"prompt": "x", "completion": "y", "id": 1, "score": None}, ("id",)),
        ({"prompt": "x", "completion": "y", "input": "z"}, ("input",)),
        ({"prompt": "x", "completion": "y", "label": True, "weight": 1.0}, ()),
        ({"prompt": "x", "completion": "y", "weight": 0.5}, ("weight",)),
        ({"messages": [{**USER, "mood": "calm", "time": None}, ANSWER]}, ("messages.mood",)),
        (
            {"conversations": [turn("human", "x", lang="en"), turn("gpt", "y", weight=1)]},
            ("conversations.lang",),
        ),
    ],
)
def test_keys_that_nobody_reads_are_named(row: dict[str, Any], unread: tuple[str, ...]) -> None:
    assert read_formatted_row(row).unread == unread


def test_equal_prompts_are_equal_in_any_format_case_and_space() -> None:
    chat = read_formatted_row({"messages": [{"role": "user", "content": "Two  PLUS two?"}, ANSWER]})
    pair = read_formatted_row({"prompt": "two plus\ntwo?", "completion": "four"})
    other = read_formatted_row({"prompt": "two plus two?", "completion": "4", "system": "Add."})

    assert chat.prompt == pair.prompt != other.prompt
    assert (chat.format, pair.format) == (RowFormat.MESSAGES, RowFormat.PROMPT_COMPLETION)


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        ("<think>Two and two.</think>4", True),
        ([{**ANSWER, "reasoning": "Two and two."}], True),
        ("4", False),
    ],
)
def test_reasoning_in_an_answer_is_noticed(answer: Any, reasons: bool) -> None:
    assert read_formatted_row({"prompt": "x", "completion": answer}).reasons is reasons


TEXTS = st.text(max_size=5) | st.sampled_from(["user", "assistant", "human", "gpt", "4", "[]"])
SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | TEXTS
MESSAGE_KEYS = ("role", "content", "tool_calls", "weight", "from", "value", "name", "arguments")
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(MESSAGE_KEYS) | TEXTS, inner, max_size=4)
    ),
    max_leaves=6,
)
ROWS = st.dictionaries(st.sampled_from(sorted(KNOWN_KEYS)), VALUES, max_size=5)


@settings(max_examples=60)
@given(VALUES | ROWS)
def test_any_row_is_refused_or_can_be_trained_on(row: Any) -> None:
    try:
        read = json.loads(json.dumps(read_formatted_row(row).row))
    except RowRefusal:
        return
    taken = conversations.read_row(read)
    conversations.row_tools(read, taken.get("output"))
    assert any(map(is_learnable, conversations.read_output(taken["output"])))
