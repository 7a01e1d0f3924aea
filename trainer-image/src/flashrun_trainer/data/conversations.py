"""Conversations as people write them, read into one form: rows, outputs, messages, tools.

This is the only place that decides what a key of a conversation means. A key that has another name
in other formats is translated. A key that contradicts another, or that cannot mean anything to a
trainer, is refused by its name. Any other key stays in its message, because a chat template may
read it; ``unread_keys`` lists these.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple

from flashrun_trainer.data.messages import Message, short_repr

Tool = dict[str, Any]
"""The definition of a tool in OpenAI's format: ``type`` and ``function``."""

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""Roles that are read, and what templates call them."""
_REASONING_KEYS: Final = ("reasoning_content", "reasoning", "thinking")
_LEARNED_KEYS: Final = ("weight", "train", "loss")
"""Keys that say whether an assistant's message is learned."""
_READ_KEYS: Final = frozenset(
    ("role", "content", "name", "tool_calls", "tool_call_id", "weight", "id", _REASONING_KEYS[0])
)
"""Keys that a message may have after it was read."""
_SHAREGPT_ROLES: Final = frozenset(
    ("human", "gpt", "user", "assistant", "system", "tool", "function_call", "observation")
)
_OTHER_ARGUMENTS: Final = ("parameters", "args", "input")
"""What other formats call the arguments of a call."""
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
    *_REASONING_KEYS,
    *_LEARNED_KEYS,
)
"""Keys of a row that mean something in other formats, and nothing here beside ``input``."""


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


# --- rows and outputs ---------------------------------------------------------------------------


def read_row(row: Any) -> Any:
    """Return a row of a dataset with an ``input`` that is text.

    A row with only ``messages`` has none. Its input is the last message before the first answer,
    and its output is that answer if it is plain text and the only one, else the conversation from
    there.

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
    prompt, answers = split_at_first_answer(read_messages(row["messages"]))
    last = prompt[-1]["content"] if prompt else ""
    match answers:
        case []:
            output: Any = None
        case [{"content": text}] if set(answers[0]) == {"role", "content"}:
            output = text
        case _:
            output = {"messages": answers}
    return {**row, "input": last, "output": output}


def is_whole_conversation(row: Any) -> bool:
    """Return whether a row is a conversation with its prompt, and not an input with an output."""
    is_row = isinstance(row, Mapping) and row.get("input") is None
    return is_row and row.get("messages") is not None


def row_tools(row: Any, output: Any) -> tuple[Tool, ...]:
    """Return the tools that a row or its output defines.

    Raises:
        ValueError: they cannot be read, or the row's differ from the output's.
    """
    of_row = _tools_of(row) if isinstance(row, Mapping) else []
    of_output = _tools_of(output) if _has_messages(output) else []
    if of_row and of_output and of_row != of_output:
        raise ValueError("the row's tools and those of its output differ: keep one of them")
    return tuple(of_row or of_output)


def _tools_of(holder: Mapping[str, Any]) -> list[Tool]:
    of_tools, of_functions = read_tools(holder.get("tools")), read_tools(holder.get("functions"))
    if of_tools and of_functions:
        raise ValueError("tools and functions are both set: keep tools")
    return of_tools or of_functions


def read_tools(tools: Any) -> list[Tool]:
    """Return definitions of tools, given as a list, as the JSON text of a list, or as None.

    Raises:
        ValueError: they are something else, or one has no name.
    """
    found = _parse_json(tools, "tools") if isinstance(tools, str) and tools.strip() else tools
    if not found:
        return []
    if not isinstance(found, list | tuple):
        raise ValueError(f"tools must be a list, not {short_repr(tools)}")
    return [_read_tool(tool) for tool in found]


def _read_tool(tool: Any) -> Tool:
    is_wrapped = isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping)
    function = tool["function"] if is_wrapped else tool
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"a tool must be an object with name and parameters: {short_repr(tool)}")
    if is_wrapped:
        return {"type": "function", **tool}
    described = {key: value for key, value in function.items() if key != "type"}
    return {"type": "function", "function": described}


def read_output(output: Any) -> list[Message]:
    """Return the output of a row as messages: a conversation, or one message with its text.

    Raises:
        ValueError: the output is a conversation that cannot be read.
    """
    match output:
        case {"messages": messages, **others} if _has_messages(output):
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
        case {"role": str(role)} if role in _ROLES and {"content", "tool_calls"} & set(output):
            return read_messages([output])
        case [*turns] if turns and all(map(_has_role, turns)):
            return read_messages(turns)
        case {"conversations": [*turns]} | [*turns] if turns and _is_foreign(turns):
            raise ValueError(
                "a message has the keys 'from' and 'value': write role (user, assistant, …) and "
                "content, in a list with the key messages"
            )
        case [*turns] if any(map(_has_role, turns)):
            number = [_has_role(turn) for turn in turns].index(False) + 1
            raise ValueError(f"message {number} of the output has no role")
    return [{"role": "assistant", "content": "" if output is None else to_text(output)}]


def _has_messages(output: Any) -> bool:
    """Return whether an output is an object with a conversation under ``messages``."""
    match output:
        case {"messages": [*turns]}:
            return len(output) == 1 or not turns or any(map(_has_role, turns))
        case {"messages": _}:
            return len(output) == 1
        case _:
            return False


def _has_role(turn: Any) -> bool:
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


def is_almost_conversation(value: Any) -> bool:
    """Return whether a value that is read as JSON may have been meant as a conversation."""
    match value:
        case {"messages": _} | {"conversations": [*_]} | {"conversation": [*_]}:
            return not _has_messages(value)
        case [*turns] if turns and all(isinstance(turn, Mapping) for turn in turns):
            have_content = all("content" in turn or "value" in turn for turn in turns)
            return have_content and not all(map(_has_role, turns))
        case _:
            return False


# --- messages -----------------------------------------------------------------------------------


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
    if name not in _ROLES:
        raise ValueError(
            f"a message must be an object with role ({', '.join(dict.fromkeys(_ROLES.values()))}) "
            f"and content, not {short_repr(message)}"
        )
    given = {key: value for key, value in message.items() if value is not None}
    if not {"content", "tool_calls", "function_call", *_REASONING_KEYS} & set(message):
        raise ValueError(f"a message has no content; it has {', '.join(map(str, message))}")
    read: Message = {"role": _ROLES[name], "content": _read_content(given.get("content"))}
    if reasoning := _read_reasoning(given):
        read["reasoning_content"] = reasoning
    if calls := _read_calls(given):
        read["tool_calls"] = calls
    if not _read_weight(given):
        read["weight"] = 0
    if read["role"] != "assistant" and (reasoning or calls):
        key = "reasoning" if reasoning else "tool_calls"
        raise ValueError(f"a message of the {read['role']} has {key}, which only an assistant has")
    translated = (*_LEARNED_KEYS, *_REASONING_KEYS, "function_call", "tool_calls")
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
    by_key = {key: message[key] for key in _REASONING_KEYS if message.get(key)}
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
    by_key = {key: message[key] for key in _LEARNED_KEYS if key in message}
    for key, value in by_key.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            raise ValueError(f"{key} is {short_repr(value)}, and must be 0, 1, false or true")
        if value and _ROLES[message["role"].strip()] != "assistant":
            raise ValueError(
                f"{key} is {value} in a message of the {message['role']}: only messages of the "
                "assistant are learned"
            )
    if len({bool(value) for value in by_key.values()}) > 1:
        raise ValueError(f"{' and '.join(by_key)} of a message contradict each other")
    is_assistant = _ROLES[message["role"].strip()] == "assistant"
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
        found = _parse_json(arguments, f"the arguments of {name}") if arguments.strip() else None
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValueError(
            f"the arguments of {name} must be an object or its JSON text, not "
            f"{short_repr(arguments)}"
        )
    return dict(found)


def _parse_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} are not valid JSON: {error}") from error


# --- what nobody reads --------------------------------------------------------------------------


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
    return is_almost_conversation(value) or _has_messages(value) or _is_messages(value)


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_has_role, value))
