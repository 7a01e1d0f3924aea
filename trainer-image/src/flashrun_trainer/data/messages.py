"""Chat messages: checks on those that an environment gives, and the model's answer to them."""

import json
from collections.abc import Mapping
from typing import Any, Final

Message = dict[str, Any]
"""A chat message as templates take it: ``role``, ``content`` and perhaps ``tool_calls``."""

MESSAGES_HINT: Final = (
    'a conversation needs {"messages": […]} and nothing else, with role and content'
)
_ROLES: Final = ("system", "user", "assistant", "tool")
_LONGEST_REPR: Final = 80


class Answer(str):
    """A model's answer as scorers see it: without its reasoning, which is kept in attributes."""

    thinking: str
    """The reasoning."""
    completion: str
    """The answer, with the white space around it."""
    raw: str
    """Reasoning and answer, as sampled."""

    def __new__(cls, raw: str, thinks: bool = True, opened: bool = False) -> "Answer":
        """Split ``raw``; ``opened`` is True when the prompt itself ended with ``<think>``.

        Reasoning that does not end leaves no answer. When the run's ``thinking`` is off (``thinks``
        is False), nothing is split off: text between such tags is part of the answer.
        """
        if not thinks:
            return cls._from_parts(raw, "", raw, raw)
        before, closed, after = raw.rpartition("</think>")
        thinking = before if closed else raw if opened or "<think>" in raw else ""
        answer = after if closed else "" if thinking else raw
        _, tag, inside = thinking.partition("<think>")
        thinking = inside if tag and not opened else thinking
        return cls._from_parts(answer.strip() if closed else answer, thinking, answer, raw)

    @classmethod
    def _from_parts(cls, text: str, thinking: str, completion: str, raw: str) -> "Answer":
        self = super().__new__(cls, text)
        self.thinking, self.completion, self.raw = thinking, completion, raw
        return self

    def __getnewargs__(self) -> tuple[str, bool]:  # type: ignore[override]
        """Return the arguments for a copy: its text must not be split again.

        The attributes are copied separately.
        """
        return str(self), False

    @property
    def first_thought(self) -> str:
        """The first span of reasoning; the length penalty counts its tokens."""
        return self.thinking.partition("</think>")[0]


def validate_messages(messages: Any) -> list[Message]:
    """Return chat messages in the form that templates take.

    Raises:
        ValueError: ``messages`` is not a list of chat messages.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError(f"messages must be a list that is not empty, not {short_repr(messages)}")
    return [_validate_message(message) for message in messages]


def _validate_message(message: Any) -> Message:
    if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
        raise ValueError(
            f"a message must be an object with role ({', '.join(_ROLES)}) and content, "
            f"not {short_repr(message)}"
        )
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise ValueError("the content of a message has parts that are not text")
        content = "".join(str(part.get("text", "")) for part in content)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"the content of a message must be text, not {short_repr(content)}")
    calls = [_parse_arguments(call) for call in message.get("tool_calls") or ()]
    return {**message, "content": content or "", **({"tool_calls": calls} if calls else {})}


def _parse_arguments(call: Any) -> Message:
    """Return a tool call with its arguments as an object; OpenAI's format has them as JSON text."""
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    if not isinstance(function.get("name"), str):
        raise ValueError(f"a tool call must have the name of its function: {short_repr(call)}")
    arguments = function.get("arguments")
    parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(parsed, dict):
        raise ValueError(
            f"the arguments of a tool call must be an object, not {short_repr(arguments)}"
        )
    changed = {**function, "arguments": parsed}
    return {**call, "function": changed} if "function" in call else changed


def is_learnable(message: Message) -> bool:
    """Return whether a message of a completion is an assistant's message that is not empty."""
    content = str(message.get("content") or "").strip()
    parts = (content, message.get("tool_calls"), message.get("reasoning_content"))
    return message["role"] == "assistant" and any(parts)


def has_reasoning(message: Message) -> bool:
    """Return whether a message is an assistant's message with complete reasoning."""
    _, _, inside = str(message.get("content") or "").partition("<think>")
    reasoning = "</think>" in inside or message.get("reasoning_content")
    return message["role"] == "assistant" and bool(reasoning)


def is_almost_messages(output: Any) -> bool:
    """Return whether an output looks like a conversation, but not in the form that the SDK reads.

    Such an output is learned as one text: its JSON.
    """
    match output:
        case {"messages": list(), **others}:
            return bool(others)
        case [*turns] if turns and all(isinstance(turn, Mapping) for turn in turns):
            have_content = all("content" in turn or "value" in turn for turn in turns)
            return have_content and not all(isinstance(turn.get("role"), str) for turn in turns)
        case _:
            return False


def short_repr(value: Any) -> str:
    """Return ``repr(value)``, cut to 80 characters, for a message to a person."""
    text = repr(value)
    return text if len(text) <= _LONGEST_REPR else text[: _LONGEST_REPR - 1] + "…"
