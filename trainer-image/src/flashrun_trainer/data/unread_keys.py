"""Warnings about what nobody reads: keys of rows and messages, and conversations as JSON text."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from flashrun_trainer.data.conversations import Conversation, has_messages, has_role
from flashrun_trainer.data.message_reading import LEARNED_KEYS, REASONING_KEYS
from flashrun_trainer.data.messages import Message

_READ_KEYS: Final = frozenset(
    ("role", "content", "name", "tool_calls", "tool_call_id", "weight", "id", "reasoning_content")
)
"""Keys that a message may have after it was read."""
_FOREIGN_ROW_KEYS: Final = (
    "system",
    "messages",
    "conversations",
    "history",
    "functions",
    "prompt",
    "completion",
    "instruction",
    "chosen",
    "rejected",
    *REASONING_KEYS,
    *LEARNED_KEYS,
)
"""Keys of a row that mean something in other formats, and nothing here beside ``input``."""


def unread_keys(messages: Iterable[Message], template: str = "") -> list[str]:
    """Return the keys of messages that neither the trainer nor ``template`` reads, each once."""
    keys = dict.fromkeys(str(key) for message in messages for key in message)
    return [key for key in keys if key not in _READ_KEYS and key not in template]


def unread_row_keys(row: Any, code: str) -> list[str]:
    """Return the keys of a row that other formats know, and that neither we nor ``code`` read.

    ``code`` is the text of the environment, which may read any key of ``example.record``.
    """
    if not isinstance(row, Mapping):
        return []
    read = ("messages", "functions") if row.get("input") is None else ("functions",)
    foreign = (key for key in _FOREIGN_ROW_KEYS if key in row and key not in read)
    return [key for key in foreign if f'"{key}"' not in code and f"'{key}'" not in code]


def unread_row_remark(rows: Iterable[tuple[str, Any]], code: str) -> str:
    """Return a warning about the keys of rows, with their names, that nobody reads, or "".

    ``code`` is the text of the environment's code.
    """
    first: dict[str, str] = {}
    for name, row in rows:
        for key in unread_row_keys(row, code):
            first.setdefault(key, name)
    if not first:
        return ""
    listed = ", ".join(f"{key!r} ({name})" for key, name in first.items())
    return (
        f"nobody reads these keys of rows: {listed}: a conversation belongs into output, or into "
        "messages without input"
    )


def unread_remark(conversations: Iterable[Conversation], template: str = "") -> str:
    """Return a warning about keys of messages that nobody reads, or an empty string."""
    first: dict[str, str] = {}
    for conversation in conversations:
        for key in unread_keys((*conversation.prompt, *conversation.completion), template):
            first.setdefault(key, conversation.name)
    if not first:
        return ""
    listed = ", ".join(f"{key!r} ({name})" for key, name in first.items())
    return f"nobody reads these keys of messages: {listed}: remove them, or correct their names"


def json_remark(conversations: Iterable[Conversation]) -> str:
    """Return a warning about text that is the JSON of a conversation, or an empty string."""
    names = [
        conversation.name
        for conversation in conversations
        if any(map(_is_json_of_messages, (*conversation.prompt, *conversation.completion)))
    ]
    if not names:
        return ""
    return (
        f"{len(names)} examples ({names[0]} first) have the JSON text of a conversation as the "
        'text of a message: write a conversation as {"messages": […]} in the output, or as '
        "messages in the row, with role and content"
    )


def _is_json_of_messages(message: Message) -> bool:
    text = str(message.get("content") or "").strip()
    if not text.startswith(("{", "[")):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return _is_almost_conversation(value) or has_messages(value) or _is_messages(value)


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(has_role, value))


def _is_almost_conversation(value: Any) -> bool:
    """Return whether a value that is read as JSON may have been meant as a conversation."""
    match value:
        case {"messages": _} | {"conversations": [*_]} | {"conversation": [*_]}:
            return not has_messages(value)
        case {"role": str(), "content": _}:
            return True
        case {"content": _}:
            return bool({"tool_calls", "function_call", *REASONING_KEYS} & set(value))
        case [*turns] if turns and all(isinstance(turn, Mapping) for turn in turns):
            have_content = all("content" in turn or "value" in turn for turn in turns)
            return have_content and not all(map(has_role, turns))
        case _:
            return False
