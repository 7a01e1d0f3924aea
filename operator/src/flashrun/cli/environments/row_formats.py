"""Rows in the formats that people have, read into rows of a dataset.

Messages, answers and tools are read by the trainer's own reader, so a row that passes here passes
in training. What a row has and nobody reads is returned by its name.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final, NamedTuple

from flashrun_trainer.data import conversations, unread_keys
from flashrun_trainer.data.message_reading import LEARNED_KEYS, parse_json, read_messages
from flashrun_trainer.data.messages import Message, has_reasoning, is_learnable, short_repr
from flashrun_trainer.data.tool_definitions import tools_of


class RowFormat(StrEnum):
    """What a row is written as."""

    MESSAGES = "messages"
    CONVERSATIONS = "conversations"
    PROMPT_COMPLETION = "prompt and completion"
    INSTRUCTION = "instruction and output"
    INPUT_OUTPUT = "input and output"


class FormattedRow(NamedTuple):
    """A row of a dataset, and what it was made of."""

    format: RowFormat
    row: dict[str, Any]
    """The row as the trainer reads it: ``messages``, or ``input`` and ``output``; and ``tools``."""
    prompt: tuple[str, ...]
    """Role and text of each message before the answer, without differences in case and space."""
    characters: int
    """Length of everything that the model reads and learns of the row."""
    reasons: bool
    """Whether its answer has reasoning."""
    unread: tuple[str, ...]
    """Keys that nobody reads; those of messages as ``messages.KEY``."""


class RowRefusal(Exception):
    """A row that cannot be learned: the key that is wrong, and why."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}" if key else why)
        self.key = key
        self.why = why


_NEEDED: Final = {
    RowFormat.MESSAGES: ("messages",),
    RowFormat.CONVERSATIONS: ("conversations",),
    RowFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    RowFormat.INSTRUCTION: ("instruction", "output"),
    RowFormat.INPUT_OUTPUT: ("input", "output"),
}
"""The keys of each format, in the order in which a row is tried."""
_OPTIONAL: Final = {RowFormat.INSTRUCTION: ("input", "history")}
_ALWAYS_READ: Final = ("system", "tools", "functions")
_EXCLUDING: Final = ("weight", "train", "label")
"""Keys that exclude a row with 0 or false: it is context, or an answer that people disliked."""
_PREFERENCES: Final = ("chosen", "rejected")
KNOWN_KEYS: Final = frozenset(
    (
        *(key for keys in (*_NEEDED.values(), *_OPTIONAL.values()) for key in keys),
        *(*_ALWAYS_READ, *_EXCLUDING, *_PREFERENCES),
    )
)
"""Every key that has a meaning in a row."""
FORMATS_HINT: Final = (
    "a row has messages, conversations, prompt and completion, instruction and output, or input "
    "and output"
)

_ROLES: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
"""What a turn's ``from`` means in ShareGPT's format."""
_CALLS: Final = ("function_call", "tool_call")
_TURN_KEYS: Final = ("from", "value", *LEARNED_KEYS)
_SPACE: Final = re.compile(r"\s+")


def read_formatted_row(row: Any) -> FormattedRow:
    """Return a row of any known format as a row of a dataset.

    Raises:
        RowRefusal: the row has no known format, or cannot be learned.
    """
    if not isinstance(row, Mapping):
        raise RowRefusal("", f"the row must be an object with keys, not {short_repr(row)}")
    given = {str(key): value for key, value in row.items() if value is not None and value != []}
    form = _format_of(given)
    for key in _EXCLUDING:
        if isinstance(given.get(key), int | float) and not given[key]:
            raise RowRefusal(key, f"is {short_repr(given[key])}: the row is not to be learned")
    if form in (RowFormat.MESSAGES, RowFormat.CONVERSATIONS):
        read, dropped = _read_conversation(given, form)
    else:
        read, dropped = _read_pair(given, form), ()
    with _naming("tools"):
        if tools := tools_of(given):
            read["tools"] = tools
    _check_json(read, _NEEDED[form])
    used = {*_NEEDED[form], *_OPTIONAL.get(form, ()), *_ALWAYS_READ}
    used |= {key for key in _EXCLUDING if given.get(key) in (1, True)}
    unread = (*(key for key in given if key not in used), *dropped)
    return _described(form, read, unread)


def _format_of(given: Mapping[str, Any]) -> RowFormat:
    for form, keys in _NEEDED.items():
        if all(key in given for key in keys):
            return form
    if all(key in given for key in _PREFERENCES):
        raise RowRefusal(
            "chosen",
            "the row compares two answers, and SFT imitates one: name the better one completion",
        )
    for keys in _NEEDED.values():
        missing = [key for key in keys if key not in given]
        if 0 < len(missing) < len(keys):
            present = next(key for key in keys if key in given)
            raise RowRefusal(missing[0], f"is missing or null beside {present}")
    listed = f"it has {', '.join(given)}" if given else "it has no value"
    raise RowRefusal("", f"the row has no known format; {listed}")


# --- conversations ------------------------------------------------------------------------------


def _read_conversation(
    given: Mapping[str, Any], form: RowFormat
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a row with ``messages``, and the keys of its messages that were dropped."""
    key = _NEEDED[form][0]
    with _naming(key):
        turns = given[key]
        if isinstance(turns, str):
            turns = parse_json(turns, "the messages")
        dropped: tuple[str, ...] = ()
        if isinstance(turns, list) and turns and all(map(_is_turn, turns)):
            turns, dropped = _read_turns(turns)
        messages = read_messages(turns)
    return {"messages": _with_system(messages, given)}, dropped


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, Mapping) and "from" in turn and "value" in turn


def _read_turns(turns: Sequence[Mapping[str, Any]]) -> tuple[list[Message], tuple[str, ...]]:
    """Return ShareGPT's turns as messages, and their other keys that have a value."""
    others = dict.fromkeys(
        f"conversations.{key}"
        for turn in turns
        for key, value in turn.items()
        if key not in _TURN_KEYS and value is not None
    )
    return [_read_turn(number, turn) for number, turn in enumerate(turns, 1)], tuple(others)


def _read_turn(number: int, turn: Mapping[str, Any]) -> Message:
    sender, value = turn["from"], turn["value"]
    if not isinstance(sender, str) or sender not in _ROLES:
        raise ValueError(
            f"turn {number} is from {short_repr(sender)}, and must be from {', '.join(_ROLES)}"
        )
    message: Message = {"role": _ROLES[sender], "content": value}
    if sender in _CALLS:
        calls = (
            parse_json(value, f"the calls of turn {number}") if isinstance(value, str) else value
        )
        message |= {"content": "", "tool_calls": calls if isinstance(calls, list) else [calls]}
    return {**message, **{key: turn[key] for key in LEARNED_KEYS if turn.get(key) is not None}}


# --- prompts and answers ------------------------------------------------------------------------


def _read_pair(given: Mapping[str, Any], form: RowFormat) -> dict[str, Any]:
    """Return a row with ``input`` and ``output``."""
    asked, answered = _NEEDED[form]
    with _naming(asked):
        prompt = _read_prompt(given[asked])
    if form is RowFormat.INSTRUCTION and (more := given.get("input")):
        if not isinstance(more, str):
            raise RowRefusal("input", f"must be text, not {short_repr(more)}")
        if not isinstance(prompt, str):
            raise RowRefusal("input", "the instruction is a conversation, so it cannot have input")
        prompt = f"{prompt}\n\n{more.strip()}" if more.strip() else prompt
    before = _history(given["history"]) if _has_history(given, form) else []
    if before or given.get("system"):
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        prompt = _with_system([*before, *turns], given)
    with _naming(answered):
        answer = given[answered]
        if isinstance(answer, str):
            return {"input": prompt, "output": answer.strip()}
        messages = conversations.read_output(answer)
        is_chat = conversations.has_messages(answer) or any(
            map(conversations.has_role, _list(answer))
        )
    return {"input": prompt, "output": {"messages": messages} if is_chat else answer}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read_prompt(prompt: Any) -> str | list[Message]:
    if isinstance(prompt, str):
        return prompt.strip()
    if isinstance(prompt, list):
        return read_messages(prompt)
    if isinstance(prompt, Mapping) and "messages" in prompt:
        return read_messages(prompt["messages"])
    raise ValueError(f"must be text or a list of messages, not {short_repr(prompt)}")


def _has_history(given: Mapping[str, Any], form: RowFormat) -> bool:
    return form is RowFormat.INSTRUCTION and bool(given.get("history"))


def _history(history: Any) -> list[Message]:
    """Return earlier questions and answers, given as pairs, as messages."""
    with _naming("history"):
        pairs = parse_json(history, "the pairs") if isinstance(history, str) else history
        messages: list[Message] = []
        for pair in pairs if isinstance(pairs, list) else [pairs]:
            match pair:
                case [str(question), str(answer)]:
                    messages.append({"role": "user", "content": question})
                    messages.append({"role": "assistant", "content": answer})
                case _:
                    raise ValueError(f"must have pairs of texts, not {short_repr(pair)}")
    return messages


def _with_system(messages: list[Message], given: Mapping[str, Any]) -> list[Message]:
    """Return the messages with the row's own ``system`` text before them."""
    system = given.get("system")
    if not isinstance(system, str) or not system.strip():
        if system:
            raise RowRefusal("system", f"must be text, not {short_repr(system)}")
        return messages
    if messages and messages[0]["role"] == "system":
        raise RowRefusal("system", "the row and its first message both are a system prompt")
    return [{"role": "system", "content": system.strip()}, *messages]


# --- what was read ------------------------------------------------------------------------------


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Turn a ``ValueError`` of the trainer's reader into the refusal of a key."""
    try:
        yield
    except ValueError as error:
        raise RowRefusal(key, str(error)) from error
    except RecursionError as error:
        raise RowRefusal(key, "is nested too deeply") from error


def _check_json(row: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Check that a row can be written as a line of JSON; ``keys`` are those it was read from."""
    written = {"input": keys[0], "output": keys[-1], "messages": keys[0]}
    for name, value in row.items():
        key = written.get(name, name)
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as error:
            raise RowRefusal(key, "has text that is not valid Unicode") from error
        except (TypeError, ValueError) as error:
            raise RowRefusal(key, f"cannot be written as JSON: {error}") from error
        except RecursionError as error:
            raise RowRefusal(key, "is nested too deeply") from error


def _described(form: RowFormat, row: dict[str, Any], unread: Iterable[str]) -> FormattedRow:
    """Return a row with what the trainer makes of it; refuse it if that cannot be learned."""
    keys = _NEEDED[form]
    if "messages" in row:
        prompt, completion = conversations.split_at_first_answer(row["messages"])
    else:
        given = row["input"]
        prompt = given if isinstance(given, list) else [{"role": "user", "content": given}]
        completion = conversations.read_output(row["output"])
    prompt, completion, *_ = conversations.join(prompt, completion, "")
    if not any(message["role"] != "system" and _text(message) for message in prompt):
        raise RowRefusal(keys[0], "there is nothing to answer before the first answer")
    if not any(map(is_learnable, completion)):
        raise RowRefusal(keys[-1], "it has no answer of the assistant to learn")
    messages = [*prompt, *completion]
    foreign = (f"{keys[0]}.{key}" for key in unread_keys.unread_keys(messages))
    return FormattedRow(
        form,
        row,
        tuple(f"{message['role']}: {_folded(_text(message))}" for message in prompt),
        sum(len(_text(message)) for message in messages),
        any(map(has_reasoning, completion)),
        tuple(dict.fromkeys((*unread, *foreign))),
    )


def _text(message: Message) -> str:
    parts = (message.get("content"), message.get("reasoning_content"))
    calls = message.get("tool_calls")
    written = json.dumps(calls, ensure_ascii=False) if calls else ""
    return "".join((*(str(part or "") for part in parts), written)).strip()


def _folded(text: str) -> str:
    return _SPACE.sub(" ", text).casefold()
