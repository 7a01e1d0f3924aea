"""Chat messages, and the model's answer to them."""

from typing import Any, Final

Message = dict[str, Any]
"""A chat message as templates take it: ``role``, ``content`` and perhaps ``tool_calls``.

``conversations`` reads what people write into this form: tool calls in OpenAI's format with their
arguments as an object, reasoning under ``reasoning_content``, and ``weight`` 0 for an assistant's
message that is context.
"""

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


def is_learned(message: Message) -> bool:
    """Return whether a message of a completion is an assistant's, and not marked as context."""
    return message["role"] == "assistant" and message.get("weight") != 0


def is_learnable(message: Message) -> bool:
    """Return whether a message of a completion is learned and not empty."""
    content = str(message.get("content") or "").strip()
    parts = (content, message.get("tool_calls"), message.get("reasoning_content"))
    return is_learned(message) and any(parts)


def has_reasoning(message: Message) -> bool:
    """Return whether a message is an assistant's message with complete reasoning."""
    _, _, inside = str(message.get("content") or "").partition("<think>")
    reasoning = "</think>" in inside or message.get("reasoning_content")
    return message["role"] == "assistant" and bool(reasoning)


def short_repr(value: Any) -> str:
    """Return ``repr(value)``, cut to 80 characters, for a message to a person."""
    text = repr(value)
    return text if len(text) <= _LONGEST_REPR else text[: _LONGEST_REPR - 1] + "…"
