"""Chat messages, and the model's answer to them."""

import json
from dataclasses import dataclass
from typing import Any, Final

from flashrun_trainer.data.reasoning import THINK, ReasoningForm

Message = dict[str, Any]
"""A chat message as templates take it: ``role``, ``content`` and perhaps ``tool_calls``.

``message_reading`` reads what people write into this form: tool calls in OpenAI's format with their
arguments as an object, reasoning under ``reasoning_content``, and ``weight`` 0 for an assistant's
message that is context.
"""

_LONGEST_REPR: Final = 80


@dataclass(frozen=True)
class SampledAnswer:
    """An answer with what its text alone does not show."""

    content: str
    """The text, without reasoning and calls."""
    calls: tuple[Message, ...] = ()
    """Calls of tools in OpenAI's format, with their arguments as an object."""
    cut_off: bool = False
    """Whether ``max_tokens`` has cut it off."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def to_request(self, number: int, thinking: str) -> dict[str, Any]:
        """Return it for the process of an environment; ``number`` is that of the answer."""
        message: Message = {"role": "assistant", "content": str(self.content)}
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": f"call_{number}_{index}",
                    "type": "function",
                    "function": {
                        "name": call["function"]["name"],
                        "arguments": json.dumps(call["function"]["arguments"]),
                    },
                }
                for index, call in enumerate(self.calls)
            ]
        return {
            "message": message,
            "thinking": str(thinking),
            "cut_off": self.cut_off,
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
        }


class Answer(str):
    """A model's answer as scorers see it: without its reasoning, which is kept in attributes."""

    thinking: str
    """The reasoning."""
    completion: str
    """The answer, with the white space around it."""
    raw: str
    """Reasoning and answer, as sampled."""

    first_thought: str
    """The first span of reasoning; the length penalty counts its tokens."""

    sampled: SampledAnswer | None = None
    """More about it, where the environment needs that."""

    def __new__(
        cls, raw: str, thinks: bool = True, opened: bool = False, form: ReasoningForm = THINK
    ) -> "Answer":
        """Split ``raw``; ``opened`` is True when the prompt itself has opened the reasoning.

        Reasoning that does not end leaves no answer. When the run's ``thinking`` is off (``thinks``
        is False), nothing is split off: text between such tags is part of the answer. A model with
        a channel for its reasoning writes the answer in another one, whatever ``thinks`` is.
        """
        thinking, answer = form.split(raw, opened) if thinks or form.is_channel else ("", raw)
        is_split = len(answer) < len(raw)
        self = super().__new__(cls, answer.strip() if is_split else answer)
        self.thinking, self.completion, self.raw = thinking, answer, raw
        self.first_thought = thinking.partition(form.end)[0]
        return self

    def __getnewargs__(self) -> tuple[str, bool]:  # type: ignore[override]
        """Return the arguments for a copy: its text must not be split again.

        The attributes are copied separately.
        """
        return str(self), False


def is_learned(message: Message) -> bool:
    """Return whether a message of a completion is an assistant's, and not marked as context."""
    return message["role"] == "assistant" and message.get("weight") != 0


def is_learnable(message: Message) -> bool:
    """Return whether a message of a completion is learned and not empty."""
    content = str(message.get("content") or "").strip()
    parts = (content, message.get("tool_calls"), message.get("reasoning_content"))
    return is_learned(message) and any(parts)


def has_reasoning(message: Message, form: ReasoningForm = THINK) -> bool:
    """Return whether a message is an assistant's message with complete reasoning.

    The reasoning may be marked as the model does it (``form``), or with ``<think>``.
    """
    content = str(message.get("content") or "")
    marked = any(tags.end in content.partition(tags.start)[2] for tags in (form, THINK))
    return message["role"] == "assistant" and (marked or bool(message.get("reasoning_content")))


def short_repr(value: Any) -> str:
    """Return ``repr(value)``, cut to 80 characters, for a message to a person."""
    try:
        text = repr(value)
    except Exception:  # objects of other libraries may fail when they are printed
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST_REPR else text[: _LONGEST_REPR - 1] + "…"
