"""The form of messages that a chat template wants, found by rendering short probes.

Templates differ in whether the arguments of a tool call are an object or JSON text, in the key of a
message's reasoning, and in what they leave out silently.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.data.conversations import Conversation
from flashrun_trainer.data.messages import Message, has_reasoning
from flashrun_trainer.data.reasoning import THINK, ReasoningForm, tags_in
from flashrun_trainer.pod.trainer_errors import TrainerError

_QUESTION: Final[Message] = {"role": "user", "content": "qst7"}
_ANSWER: Final = "ans7"
_REASON: Final = "rsn7"
_NAME, _KEY, _VALUE = "fun7", "key7", "val7"
_REASONING_KEYS: Final = ("reasoning_content", "thinking", "reasoning")
_CHANNELS: Final = (ReasoningForm("<|channel>thought", "<channel|>", closing="\n<channel|>"),)
"""Forms that templates remove from earlier turns, and that some of them write nowhere."""


@dataclass(frozen=True)
class TemplateForm:
    """What a template wants messages to look like."""

    content_as_parts: bool = False
    """Whether content is a list of parts, as for some vision models, and not text."""
    arguments_as_text: bool = False
    """Whether the arguments of a tool call are JSON text, and not an object."""
    reasoning_key: str = ""
    """The key of a message's reasoning; empty when the template reads none."""
    reads_tags: bool = True
    """Whether reasoning may be in the content, between ``<think>`` and ``</think>``."""
    reasoning: ReasoningForm = THINK
    """How the model writes its reasoning."""
    is_switched: bool = True
    """Whether the key ``thinking`` changes the prompt."""
    writes_tools: bool = True
    """Whether the definitions of tools are written."""
    writes_reasoning: bool = True
    """Whether the reasoning of the last turn is written, or the prompt has opened it."""

    def adapt(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages in the form that the template wants."""
        adapted = [
            self._adapt(message) if message["role"] == "assistant" else message
            for message in messages
        ]
        return _with_parts(adapted) if self.content_as_parts else adapted

    def _adapt(self, message: Message) -> Message:
        adapted = self._with_reasoning(dict(message))
        calls = message.get("tool_calls")
        if calls and self.arguments_as_text:
            adapted["tool_calls"] = list(map(_with_arguments_as_text, calls))
        return adapted

    def _with_reasoning(self, message: Message) -> Message:
        content = str(message.get("content") or "")
        reasoning = message.get("reasoning_content", "")
        if self.reasoning_key and not reasoning and not self.reads_tags:
            reasoning, message["content"] = self._split(content)
        if not reasoning:
            return message
        if self.reasoning_key:
            message.pop("reasoning_content", None)
            return {**message, self.reasoning_key: reasoning}
        if self.reads_tags:
            del message["reasoning_content"]
            message["content"] = f"<think>\n{reasoning}\n</think>\n\n{content}"
        return message

    def _split(self, content: str) -> tuple[str, str]:
        """Return the reasoning at the beginning of a content, and the rest."""
        for form in (self.reasoning, THINK):
            if content.lstrip().startswith(form.start) and form.end in content:
                reasoning, answer = form.split(content)
                return reasoning.strip("\n"), answer.lstrip("\n")
        return "", content


def _with_arguments_as_text(call: Message) -> Message:
    arguments = call["function"]["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": text}}


def unwritten_calls(tokenizer: Any, conversation: Conversation) -> list[int]:
    """Return the positions of messages whose tool calls the template leaves out.

    Positions count the messages of the prompt, too. Each message is rendered with and without its
    calls: some templates leave them out only beside text.
    """
    form = template_form(tokenizer)
    probe = _Probe(tokenizer, form.content_as_parts)
    messages = [*conversation.prompt, *conversation.completion]
    found = []
    for index, message in enumerate(messages):
        if message.get("tool_calls"):
            plain = {key: value for key, value in message.items() if key != "tool_calls"}
            with_calls, without = (
                probe.render(form.adapt([*messages[:index], last]), tools=conversation.tools)
                for last in (message, plain)
            )
            if with_calls == without != "":
                found.append(index)
    return found


def unwritten_remark(tokenizer: Any, conversations: Sequence[Conversation]) -> str:
    """Return a warning about what the template leaves out of conversations, or an empty string."""
    form = template_form(tokenizer)
    having: dict[str, list[str]] = {
        "tools": [item.name for item in conversations if item.tools and not form.writes_tools],
        "the tool calls of prompts": [
            item.name
            for item in conversations
            if any(at < len(item.prompt) for at in unwritten_calls(tokenizer, item))
        ],
        "reasoning": [
            item.name
            for item in conversations
            if not form.writes_reasoning
            and any(has_reasoning(message, form.reasoning) for message in item.completion)
        ],
    }
    parts = [
        f"{what} ({len(names)} of {len(conversations)} examples, {names[0]} first)"
        for what, names in having.items()
        if names
    ]
    if not parts:
        return ""
    return (
        f"the model's chat template leaves out {', '.join(parts)}: set the key model to another "
        "model, or write this as the text of messages"
    )


def template_form(tokenizer: Any) -> TemplateForm:
    """Return the form of messages that the tokenizer's chat template wants."""
    return _find_form(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=8)
def _find_form(tokenizer: Any, template: str) -> TemplateForm:
    """Render probes. ``template`` is a key of the cache: a tokenizer's template may be replaced."""
    as_parts = _wants_parts(tokenizer)
    probe = _Probe(tokenizer, as_parts)
    prompts = {probe.render([_QUESTION], opens=True, thinking=on) for on in (True, False)}
    reasoning_key = probe.reasoning_key()
    reasoning = probe.reasoning_form(reasoning_key, template)
    form = TemplateForm(
        content_as_parts=as_parts,
        arguments_as_text=probe.wants_arguments_as_text(),
        reasoning_key=reasoning_key,
        reads_tags=probe.reads_tags(reasoning_key) and not reasoning.is_channel,
        reasoning=reasoning,
        is_switched=len(prompts) > 1,
        writes_tools=_NAME in probe.render([_QUESTION], tools=[_TOOL]),
    )
    reasoned = [_QUESTION, _answer(reasoning_content=_REASON)]
    is_written = _REASON in probe.render(form.adapt(reasoned))
    is_opened = any(map(reasoning.is_opened_by, prompts))
    return replace(form, writes_reasoning=is_written or is_opened)


_TOOL: Final = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {_KEY: {"type": "string", "description": "A value."}},
            "required": [_KEY],
        },
    },
}


def _answer(**others: Any) -> Message:
    return {"role": "assistant", "content": _ANSWER, **others}


def _with_parts(messages: Sequence[Message]) -> list[Message]:
    """Return messages whose content is a list with one part."""
    return [
        message
        if isinstance(message.get("content"), list)
        else {**message, "content": [{"type": "text", "text": message.get("content") or ""}]}
        for message in messages
    ]


def _wants_parts(tokenizer: Any) -> bool:
    """Return whether the template reads content only as a list of parts.

    Raises:
        TrainerError: the template leaves out the content in both forms.
    """
    texts = {
        as_parts: _Probe(tokenizer, as_parts).render([_QUESTION]) for as_parts in (False, True)
    }
    written = [as_parts for as_parts, text in texts.items() if _QUESTION["content"] in text]
    if not written and any(texts.values()):
        raise TrainerError(
            Exit.CONFIG,
            Reason.TEMPLATE_UNSUPPORTED,
            "the model's chat template leaves out the text of messages, both as text and as a list "
            "of parts",
            "set the key model to another model",
        )
    return written[:1] == [True]


class _Probe:
    """Renders short conversations, to see what a template writes."""

    def __init__(self, tokenizer: Any, as_parts: bool) -> None:
        self._tokenizer, self._as_parts = tokenizer, as_parts

    def render(
        self,
        messages: Sequence[Message],
        opens: bool = False,
        thinking: bool = True,
        tools: Sequence[Any] = (),
    ) -> str:
        """Return messages as the template writes them; an empty text when it refuses them."""
        if self._as_parts:
            messages = _with_parts(messages)
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=opens,
                    enable_thinking=thinking,
                )
            )
        except Exception:  # A template is a program and may raise anything.
            return ""

    def wants_arguments_as_text(self) -> bool:
        """Return whether the template writes tool calls only if their arguments are text."""
        for as_text in (False, True):
            arguments: Any = {_KEY: _VALUE}
            call = {
                "type": "function",
                "id": "probe0000",
                "function": {
                    "name": _NAME,
                    "arguments": json.dumps(arguments) if as_text else arguments,
                },
            }
            turn = {"role": "assistant", "content": "", "tool_calls": [call]}
            text = self.render([_QUESTION, turn])
            # Python's notation of an object, or JSON text within JSON text, is a wrong form.
            is_wrong = f"'{_KEY}'" in text or f'\\"{_KEY}' in text
            if all(part in text for part in (_NAME, _KEY, _VALUE)) and not is_wrong:
                return as_text
        return False

    def reasoning_key(self) -> str:
        """Return the key of a message under which the template reads its reasoning, or ""."""
        for key in _REASONING_KEYS:
            text = self.render([_QUESTION, _answer(**{key: _REASON})])
            if _REASON in text and _ANSWER in text.partition(_REASON)[2]:
                return key
        return ""

    def reads_tags(self, key: str) -> bool:
        """Return whether the template writes reasoning between tags in the content as it should."""
        in_content = _answer(content=f"<think>\n{_REASON}\n</think>\n\n{_ANSWER}")
        text = self.render([_QUESTION, in_content])
        if not key:
            return _REASON in text
        under_key = self.render([_QUESTION, _answer(**{key: _REASON})])
        return "".join(text.split()) == "".join(under_key.split())

    def reasoning_form(self, key: str, template: str) -> ReasoningForm:
        """Return how the template writes reasoning, compared with the prompt and a plain answer."""
        if not key:
            return next((form for form in _CHANNELS if _mentions(template, form)), THINK)
        opened = self.render([_QUESTION], opens=True)
        before, _, after = self.render([_QUESTION, _answer(**{key: _REASON})]).partition(_REASON)
        # A generation prompt may itself open the reasoning.
        start = _without_prefix(before, opened).strip() or "".join(tags_in(opened)[-1:])
        between = after.partition(_ANSWER)[0]
        end = next(iter(tags_in(between)), between.strip())
        plain = self.render([_QUESTION, _answer()]).partition(_ANSWER)[0]
        answer_start = _without_prefix(plain, opened).strip()
        if not start or not end:
            return THINK
        is_own = start not in answer_start and end not in answer_start
        return ReasoningForm(start, end, answer_start if is_own else "", between)


def _without_prefix(text: str, prefix: str) -> str:
    """Return the text after what it has in common with ``prefix``."""
    pairs = enumerate(zip(text, prefix, strict=False))
    length = next((at for at, (a, b) in pairs if a != b), min(len(text), len(prefix)))
    return text[length:]


def _mentions(template: str, form: ReasoningForm) -> bool:
    return all(tag in template for tag in form.tags)
