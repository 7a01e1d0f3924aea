"""Chat messages as people write them, read into one form.

This is the only place that decides what a key of a message means. A key that has another name in
other formats is translated. A key that contradicts another, or that cannot mean anything to a
trainer, is refused by its name. Any other key stays in its message, because a chat template may
read it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from flashrun_trainer.data.messages import Message, short_repr

ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""Roles that are read, and what templates call them."""
REASONING_KEYS: Final = ("reasoning_content", "reasoning", "thinking")
LEARNED_KEYS: Final = ("weight", "train", "loss")
"""Keys that say whether an assistant's message is learned."""
_OTHER_ARGUMENTS: Final = ("parameters", "args", "input")
"""What other formats call the arguments of a call."""


def read_messages(messages: Any) -> list[Message]:
    """Return chat messages in the form that templates take.

    Raises:
        ValueError: ``messages`` is not a list of chat messages.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError(f"messages must be a list that is not empty, not {short_repr(messages)}")
    return [_read_message(message) for message in messages]


def _read_message(message: Any) -> Message:
    role = message.get("role") if isinstance(message, Mapping) else None
    name = role.strip() if isinstance(role, str) else None
    if name not in ROLES:
        raise ValueError(
            f"a message must be an object with role ({', '.join(dict.fromkeys(ROLES.values()))}) "
            f"and content, not {short_repr(message)}"
        )
    given = {key: value for key, value in message.items() if value is not None}
    if not {"content", "tool_calls", "function_call", *REASONING_KEYS} & set(message):
        raise ValueError(f"a message has no content; it has {', '.join(map(str, message))}")
    read: Message = {"role": ROLES[name], "content": _read_content(given.get("content"))}
    if reasoning := _read_reasoning(given):
        read["reasoning_content"] = reasoning
    if calls := _read_calls(given):
        read["tool_calls"] = calls
    if not _read_weight(given):
        read["weight"] = 0
    if read["role"] != "assistant" and (reasoning or calls):
        key = "reasoning" if reasoning else "tool_calls"
        raise ValueError(f"a message of the {read['role']} has {key}, which only an assistant has")
    translated = (*LEARNED_KEYS, *REASONING_KEYS, "function_call", "tool_calls")
    others = {key: value for key, value in given.items() if key not in translated}
    return {**others, **read}


def _read_content(content: Any) -> str:
    """Return the content of a message as text; parts of it are joined."""
    if isinstance(content, list | tuple):
        return "".join(_part_text(part) for part in content if not _is_thought(part))
    if content is not None and not isinstance(content, str):
        raise ValueError(f"the content of a message must be text, not {short_repr(content)}")
    return content or ""


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping) or part.get("type") != "text":
        raise ValueError("the content of a message has parts that are not text")
    return str(part.get("text", ""))


def _is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "thinking"


def _read_reasoning(message: Mapping[str, Any]) -> str:
    """Return the reasoning of a message, which several keys may have."""
    content = message.get("content")
    parts = filter(_is_thought, content if isinstance(content, list | tuple) else ())
    in_content = "".join(str(part.get("thinking", "")) for part in parts)
    by_key = {key: message[key] for key in REASONING_KEYS if message.get(key)}
    for key, text in by_key.items():
        if not isinstance(text, str):
            raise ValueError(f"{key} must be text, not {short_repr(text)}")
    texts = {*by_key.values(), *filter(None, (in_content,))}
    if len(texts) > 1:
        named = " and ".join(by_key) or "content"
        raise ValueError(f"a message has different reasoning in {named}: keep one")
    return next(iter(texts), "")


def _read_weight(message: Mapping[str, Any]) -> bool:
    """Return whether a message may be learned, which several keys may say."""
    by_key = {key: message[key] for key in LEARNED_KEYS if key in message}
    for key, value in by_key.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            raise ValueError(f"{key} is {short_repr(value)}, and must be 0, 1, false or true")
        if value and ROLES[message["role"].strip()] != "assistant":
            raise ValueError(
                f"{key} is {value} in a message of the {message['role']}: only messages of the "
                "assistant are learned"
            )
    if len({bool(value) for value in by_key.values()}) > 1:
        raise ValueError(f"{' and '.join(by_key)} of a message contradict each other")
    is_assistant = ROLES[message["role"].strip()] == "assistant"
    return not is_assistant or all(by_key.values())


def _read_calls(message: Mapping[str, Any]) -> list[Message]:
    """Return the tool calls of a message; an older format has one under ``function_call``."""
    calls, call = message.get("tool_calls") or (), message.get("function_call")
    if not isinstance(calls, list | tuple):
        raise ValueError(f"tool_calls must be a list, not {short_repr(calls)}")
    if calls and call:
        raise ValueError("a message has tool_calls and function_call: keep tool_calls")
    return [_read_call(item) for item in calls or ((call,) if call else ())]


def _read_call(call: Any) -> Message:
    """Return a tool call in OpenAI's format, with its arguments as an object."""
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"a tool call must have the name of its function: {short_repr(call)}")
    name = function["name"]
    if "arguments" not in function:
        other = next((key for key in _OTHER_ARGUMENTS if key in function), None)
        if other:
            raise ValueError(f"the call of {name} has {other}: name this key arguments")
    arguments = _read_arguments(name, function.get("arguments"))
    identifier = {"id": call["id"]} if call.get("id") is not None else {}
    return {**identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def _read_arguments(name: str, arguments: Any) -> dict[str, Any]:
    """Return the arguments of a call, given as an object or JSON text; "" and None are none."""
    found = arguments
    if isinstance(arguments, str):
        found = parse_json(arguments, f"the arguments of {name}") if arguments.strip() else None
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValueError(
            f"the arguments of {name} must be an object or its JSON text, not "
            f"{short_repr(arguments)}"
        )
    return dict(found)


def parse_json(text: str, what: str) -> Any:
    """Return the value of JSON text; ``what``, in the plural, names it in errors.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} are not valid JSON: {error}") from error
