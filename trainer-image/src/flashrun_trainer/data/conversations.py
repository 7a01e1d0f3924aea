"""Conversations as people write them, read into one form: rows and their outputs."""

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple

from flashrun_trainer.data.message_reading import ROLES, read_messages
from flashrun_trainer.data.messages import Message
from flashrun_trainer.data.tool_definitions import Tool, tools_of

_SHAREGPT_ROLES: Final = frozenset(
    ("human", "gpt", "user", "assistant", "system", "tool", "function_call", "observation")
)


class Conversation(NamedTuple):
    """One example: the prompt, and the completion that the assistant learns to give."""

    prompt: list[Message]
    completion: list[Message]
    """Begins with a message of the assistant, unless it has none."""
    name: str
    """The example's name for people, such as ``row 7``."""
    tools: tuple[Tool, ...] = ()
    """The tools that the template describes to the model."""


def join(
    prompt: list[Message], completion: list[Message], name: str, tools: Sequence[Tool] = ()
) -> Conversation:
    """Return prompt and completion as a conversation.

    The prompt gets the messages before the first one of the assistant: a template may refuse a
    prompt that is only a system message.
    """
    before, answers = split_at_first_answer(completion)
    return Conversation([*prompt, *before], answers, name, tuple(tools))


def split_at_first_answer(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """Return the messages before the first one of the assistant, and the others."""
    before = list(takewhile(lambda message: message["role"] != "assistant", messages))
    return before, list(messages[len(before) :])


def read_row(row: Any) -> Any:
    """Return a row of a dataset with an ``input`` that is text.

    A row with ``messages`` has none. Its input is the last message of its prompt. If it has no
    output of its own, that is the first answer if it is plain text and the only one, else the
    conversation from there.

    Raises:
        ValueError: the row has neither input nor messages, or its messages cannot be read.
    """
    if not isinstance(row, Mapping):
        return row
    if row.get("input") is not None:
        return {**row, "input": to_text(row["input"])}
    if not is_whole_conversation(row):
        near = f"; it has {', '.join(map(str, row))}" if row else ""
        raise ValueError(f"the row has no input{near}: it must have input or messages")
    prompt = row_prompt(row)
    output = row["output"] if has_own_output(row) else _as_output(row_completion(row))
    last = prompt[-1]["content"] if prompt else ""
    return {**row, "input": last, "output": output}


def _as_output(answers: Sequence[Message]) -> Any:
    match answers:
        case []:
            return None
        case [{"content": text}] if set(answers[0]) == {"role", "content"}:
            return text
        case _:
            return {"messages": answers}


def is_whole_conversation(row: Any) -> bool:
    """Return whether a row is a conversation with its prompt, and not an input with an output."""
    is_row = isinstance(row, Mapping) and row.get("input") is None
    return is_row and row.get("messages") is not None


def row_prompt(row: Mapping[str, Any]) -> list[Message]:
    """Return the prompt of a row that is a whole conversation.

    It is what comes before the first message of the assistant. If the row has an output, that is
    the completion, and all messages are the prompt.

    Raises:
        ValueError: the messages cannot be read, or end with an answer beside an output.
    """
    messages = read_messages(row["messages"])
    if not has_own_output(row):
        return split_at_first_answer(messages)[0]
    if messages[-1]["role"] == "assistant":
        raise ValueError(
            "the row has an answer at the end of its messages and an output: keep one of them"
        )
    return messages


def row_completion(row: Mapping[str, Any]) -> list[Message]:
    """Return the messages after ``row_prompt``; empty without an answer.

    Raises:
        ValueError: they cannot be read.
    """
    if has_own_output(row):
        return read_output(row["output"])
    return split_at_first_answer(read_messages(row["messages"]))[1]


def has_own_output(row: Mapping[str, Any]) -> bool:
    """Return whether a row has an output that is not empty."""
    return row.get("output") not in (None, "")


def row_tools(row: Any, output: Any) -> tuple[Tool, ...]:
    """Return the tools that a row or its output defines.

    Raises:
        ValueError: they cannot be read, or the row's differ from the output's.
    """
    of_row = tools_of(row) if isinstance(row, Mapping) else []
    of_output = tools_of(output) if has_messages(output) else []
    if of_row and of_output and of_row != of_output:
        raise ValueError("the row's tools and those of its output differ: keep one of them")
    return tuple(of_row or of_output)


def read_output(output: Any) -> list[Message]:
    """Return the output of a row as messages: a conversation, or one message with its text.

    Raises:
        ValueError: the output is a conversation that cannot be read.
    """
    match output:
        case {"messages": messages, **others} if has_messages(output):
            unread = [
                key
                for key, value in others.items()
                if key not in ("tools", "functions") and value is not None
            ]
            if unread:
                raise ValueError(
                    f"the output has the key {unread[0]!r} beside messages, which nobody reads: "
                    "remove it, or move it into metadata"
                )
            return read_messages(messages)
        case {"role": str(role)} if role in ROLES and {"content", "tool_calls"} & set(output):
            return read_messages([output])
        case [*turns] if turns and all(map(has_role, turns)):
            return read_messages(turns)
        case {"conversations": [*turns]} | [*turns] if turns and _is_foreign(turns):
            raise ValueError(
                "a message has the keys 'from' and 'value': write role (user, assistant, …) and "
                "content, in a list with the key messages"
            )
        case [*turns] if any(map(has_role, turns)):
            number = [has_role(turn) for turn in turns].index(False) + 1
            raise ValueError(f"message {number} of the output has no role")
    return [{"role": "assistant", "content": "" if output is None else to_text(output)}]


def has_messages(output: Any) -> bool:
    """Return whether an output is an object with a conversation under ``messages``."""
    match output:
        case {"messages": [*turns]}:
            return len(output) == 1 or not turns or any(map(has_role, turns))
        case {"messages": _}:
            return len(output) == 1
        case _:
            return False


def has_role(turn: Any) -> bool:
    """Return whether a value looks like a chat message."""
    return isinstance(turn, Mapping) and isinstance(turn.get("role"), str)


def _is_foreign(turns: Sequence[Any]) -> bool:
    return all(
        isinstance(turn, Mapping) and turn.get("from") in _SHAREGPT_ROLES and "value" in turn
        for turn in turns
    )


def to_text(value: Any) -> str:
    """Return a value as text: text without the white space around it, anything else as JSON.

    JSON keeps the order of the keys and every letter as it is.
    """
    from freesolo.utils.core import json_safe_value

    if isinstance(value, str):
        return value.strip()
    return json.dumps(json_safe_value(value), indent=2, ensure_ascii=False)
