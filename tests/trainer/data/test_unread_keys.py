"""Warnings about keys that nobody reads, and about conversations that are learned as JSON text."""

import json
from typing import Any

import pytest

from flashrun_trainer.data import conversations, unread_keys
from tests.trainer.written_rows import USER, WHOLE, assistant, environment_of


def talk(*completion: Any, prompt: Any = USER, name: str = "row 1") -> conversations.Conversation:
    return conversations.join([prompt], list(completion), name)


def test_keys_of_messages_that_neither_trainer_nor_template_reads_are_named_with_their_row():
    talks = [talk(assistant()), talk(assistant(mood="glad", tone="low"), name="row 2")]
    remark = unread_keys.unread_remark(talks)
    assert remark.startswith("nobody reads these keys of messages: 'mood' (row 2), 'tone' (row 2)")
    assert "tone" not in unread_keys.unread_remark(talks, "{{ message.tone }}")
    assert unread_keys.unread_remark(talks[:1]) == ""


def test_keys_of_rows_that_other_formats_know_are_named_unless_the_code_reads_them():
    rows = [("row 1", {"input": "x", "level": 3}), ("row 2", {"input": "x", "system": "Be brief."})]
    assert "'system' (row 2)" in unread_keys.unread_row_remark(rows, "")
    assert unread_keys.unread_row_remark(rows, 'example.record["system"]') == ""
    assert unread_keys.unread_row_remark([("row 1", WHOLE)], "") == ""


ALMOST = {
    "turns without a role": ([{"content": "?"}, {"content": "2"}], True),
    "messages of text": ({"messages": ["hi"], "count": 1}, True),
    "a conversation as JSON text": (json.dumps([USER, assistant()]), True),
    "a message of an unknown role": ({"role": "model", "content": "2"}, True),
    "a message without a role": ({"content": "2", "reasoning_content": "Hm."}, True),
    "a table": ({"answer": 2}, False),
    "a table with content": ({"content": "2", "title": "Sums"}, False),
    "a list of numbers": ([1, 2], False),
    "a list of tables": ([{"name": "Ann"}, {"name": "Bob"}], False),
    "text": ("[not JSON", False),
}


@pytest.mark.parametrize("case", ALMOST)
def test_a_conversation_that_is_read_as_json_text_is_warned_about(case: str):
    output, expected = ALMOST[case]
    talks = [talk(assistant()), talk(*conversations.read_output(output), name="row 2")]
    assert ("1 examples (row 2 first)" in unread_keys.json_remark(talks)) == expected


def test_a_prompt_that_is_the_json_of_messages_is_warned_about():
    [example] = environment_of({"input": [USER]}).examples
    prompt = {"role": "user", "content": example.input}
    assert "row 1 first" in unread_keys.json_remark([talk(assistant(), prompt=prompt)])
