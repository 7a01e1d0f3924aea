"""The examples of SFT: which tokens of a conversation are learned.

An assistant's turn is learned as it is generated: after the tokens that a server sends for the
messages before it, up to and including the token that ends its generation. All else is context:
what users and tools say, and what the template writes around it.

Turns share an example as long as each prompt begins with the tokens before it, answer included.
Templates that render history differently, as Qwen's do without the reasoning of earlier turns,
therefore make one example per turn.
"""

from array import array
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.data.chat_template import common_length, encode, render, render_prompt
from flashrun_trainer.data.messages import Message, is_learnable, short_repr
from flashrun_trainer.data.packing import IGNORE_INDEX
from flashrun_trainer.data.reasoning import THINK, ReasoningForm
from flashrun_trainer.data.template_forms import template_form
from flashrun_trainer.data.tool_definitions import Tool
from flashrun_trainer.data.turn_ends import added_tokens, turn_ends
from flashrun_trainer.pod.trainer_errors import TrainerError


class TokenizedExample(NamedTuple):
    """One SFT example as token ids."""

    input_ids: Sequence[int]
    labels: Sequence[int]
    """The token ids to learn; ``IGNORE_INDEX`` for the others. As long as ``input_ids``."""
    cut: bool = False
    """Whether tokens that should be learned did not fit."""


def tokenize_conversation(
    tokenizer: Any,
    prompt: Sequence[Message],
    completion: Sequence[Message],
    thinking: bool,
    tools: Sequence[Tool] = (),
) -> list[TokenizedExample]:
    """Return the examples that teach the assistant's turns of a completion.

    A prompt that ends with a turn of the assistant is continued: the first turn of the completion
    is the rest of that turn. Empty turns and those of weight 0 are context.

    Raises:
        TrainerError: the template refuses the messages, or writes nothing of a turn.
    """
    template = _Template(tokenizer, thinking, tools)
    messages, begun = [*prompt, *completion], len(prompt)
    if prompt and completion and prompt[-1]["role"] == completion[0]["role"] == "assistant":
        begun -= 1
        messages[begun : begun + 2] = [_continue_turn(prompt[-1], completion[0])]
    growing: list[_GrowingExample] = []
    for index in range(begun, len(messages)):
        if not is_learnable(messages[index]):
            continue
        before = messages[:index]
        if index == begun:
            context = render_prompt(tokenizer, prompt, thinking, tools)
        else:
            context = template.render(before, add_generation_prompt=True)
        turn = template.turn(before, messages[index], context)
        if not growing or not growing[-1].is_continued_by(context):
            growing.append(_GrowingExample(tokenizer))
        growing[-1].add(context, turn)
    return [
        TokenizedExample(array("i", example.ids), array("i", example.labels)) for example in growing
    ]


def _continue_turn(beginning: Message, rest: Message) -> Message:
    """Return the turn of the assistant that ``beginning`` opens and ``rest`` completes."""
    return {**beginning, **rest, "content": f"{beginning['content']}{rest['content']}"}


class _GrowingExample:
    """An example that grows by one turn after the other."""

    def __init__(self, tokenizer: Any) -> None:
        self.ids: list[int] = []
        self.labels: list[int] = []
        self._tokenizer = tokenizer
        self._added = added_tokens(tokenizer)
        self._text: str | None = ""
        """The text of ``ids``; None when a server would divide it into other tokens."""

    def is_continued_by(self, context: str) -> bool:
        """Return whether the tokens of a turn's context begin with all tokens of this example."""
        return self._text is not None and context.startswith(self._text)

    def add(self, context: str, turn: str) -> None:
        """Add a turn, and what its context has beyond the text so far."""
        text = self._text or ""
        between = self._encode_after(text, context[len(text) :])
        self._append(between, [IGNORE_INDEX] * len(between))
        learned, is_divided_so = self._encode_turn(context, turn)
        self._append(learned, learned)
        self._text = context + turn if is_divided_so else None

    def _append(self, ids: Sequence[int], labels: Sequence[int]) -> None:
        self.ids += ids
        self.labels += labels

    def _encode_turn(self, context: str, turn: str) -> tuple[list[int], bool]:
        """Return the tokens of a turn, and whether context and turn are divided like that.

        They are not where one token would reach from the context into the turn, such as two
        newlines of which the turn has the second. Generation cannot produce such a token.
        """
        opening = self._tail(context)
        opened = encode(self._tokenizer, opening)
        ids = encode(self._tokenizer, opening + turn)
        if ids[: len(opened)] == opened:
            return ids[len(opened) :], True
        return self._encode_after(turn, turn), False

    def _encode_after(self, before: str, text: str) -> list[int]:
        """Return the tokens of ``text`` after the last added token of ``before``, if it has one.

        Text before and after an added token is divided into tokens independently. The token stays
        before the text, because some tokenizers divide the beginning of a text differently.
        """
        anchor = self._tail(before) if before else ""
        ids = encode(self._tokenizer, anchor + text)
        return ids[len(encode(self._tokenizer, anchor)) :] if anchor else ids

    def _tail(self, text: str) -> str:
        """Return the last added token of a text and what follows it, or all of it."""
        *_, begin = [match.start() for match in self._added.finditer(text)] or [0]
        return text[begin:]


class _Template:
    """The template of one conversation."""

    def __init__(self, tokenizer: Any, thinking: bool, tools: Sequence[Tool]) -> None:
        self._tokenizer, self._thinking, self._tools = tokenizer, thinking, tools
        self._ends = turn_ends(tokenizer, thinking)
        self._added = added_tokens(tokenizer)
        self._reasoning = template_form(tokenizer).reasoning

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Return messages as text."""
        thinking = self._thinking
        return render(self._tokenizer, messages, thinking, add_generation_prompt, self._tools)

    def turn(self, before: Sequence[Message], message: Message, context: str) -> str:
        """Return what generation must produce after ``context`` for an assistant's message.

        Raises:
            TrainerError: the template writes nothing of the message.
        """
        text = self.render([*before, message], add_generation_prompt=False)
        for shortened, what in _shortened(message):
            if text == self.render([*before, shortened], add_generation_prompt=False):
                raise TrainerError(
                    Exit.DATA,
                    Reason.TEMPLATE_REFUSED,
                    f"the model's chat template writes {what} of the assistant's message "
                    f"{short_repr(message)}",
                    "write tool calls into the content in the model's own format, or set the key "
                    "model to a model whose template writes them",
                )
        after = self._text_after(before, message, context, text)
        turn = self._ends.cut(after, bool(message.get("tool_calls")), self._added)
        return self._ends.without_second(turn)

    def _text_after(
        self, before: Sequence[Message], message: Message, context: str, text: str
    ) -> str:
        """Return how ``text``, that of all messages, continues after ``context``.

        Most templates write an answer after the generation prompt as it is. Some write the prompt
        of a reasoning, open or empty, which their history does not have: then the answer's own
        text follows the prompt.
        """
        if text.startswith(context):
            return text[len(context) :].removeprefix(self._opening)
        reasoning, bare = _separate_reasoning(message, self._reasoning)
        is_opened = self._reasoning.is_opened_by(context)
        if not is_opened and bare != message:
            # The prompt says that the model does not reason.
            text = self.render([*before, bare], add_generation_prompt=False)
            if text.startswith(context):
                return text[len(context) :]
        unopened = self.render(before, add_generation_prompt=False)
        opening = context[self._common_length(unopened, context) :]
        begin = max(0, text.rfind(self._first_piece(opening)))
        begin += self._common_length(text[begin:], opening or context)
        # Some templates continue the turn of an assistant's message before this one.
        written = text[max(begin, self._common_length(unopened, text)) :]
        if is_opened and self._reasoning.end not in written:
            # The template drops reasoning from its history, and the prompt has opened one.
            answer = written.removeprefix(self._opening).lstrip()
            return reasoning + self._reasoning.closing + answer
        return written

    @cached_property
    def _opening(self) -> str:
        """The text that opens the answer to a question.

        Diffusion-Gemma writes it after tool results as well, but not at the end of a prompt.
        """
        question: Message = {"role": "user", "content": "?"}
        closed = self.render([question], add_generation_prompt=False)
        opened = self.render([question], add_generation_prompt=True)
        return opened[self._common_length(closed, opened) :]

    def _common_length(self, left: str, right: str) -> int:
        """Return the length of the common prefix of two texts that ends with no part of a token."""
        length = common_length(left, right)
        ends = (match.span() for text in (left, right) for match in self._added.finditer(text))
        return min((begin for begin, end in ends if begin < length < end), default=length)

    def _first_piece(self, opening: str) -> str:
        """Return an opening up to its second added token: the role, without think tags."""
        starts = [match.start() for match in self._added.finditer(opening)]
        return opening[: starts[1]] if len(starts) > 1 else opening


def _shortened(message: Message) -> list[tuple[Message, str]]:
    """Return shorter forms of a message that must be rendered differently, with what they lack.

    Some templates leave out tool calls, and some only those beside text.
    """
    shortened = []
    if not str(message.get("content") or "").strip():
        shortened.append(({"role": "assistant", "content": ""}, "nothing"))
    if message.get("tool_calls"):
        without = {key: value for key, value in message.items() if key != "tool_calls"}
        shortened.append((without, "no tool calls"))
    return shortened


def _separate_reasoning(message: Message, form: ReasoningForm) -> tuple[str, Message]:
    """Return the reasoning of a message, and the message without it.

    The reasoning has a field of its own, or is in the content, marked as the model does it or with
    ``<think>``.
    """
    content = str(message.get("content") or "")
    marks = next((marks for marks in (form, THINK) if marks.end in content), None)
    inside, answer = marks.split(content) if marks else ("", content)
    bare = {key: value for key, value in message.items() if key != "reasoning_content"}
    bare["content"] = answer.lstrip("\n") if marks else content
    return (str(message.get("reasoning_content") or "") or inside).strip(), bare


def truncate(example: TokenizedExample, length: int) -> TokenizedExample:
    """Return the first ``length`` tokens; ``cut`` is set when tokens to learn are lost."""
    cut = any(label != IGNORE_INDEX for label in example.labels[length:])
    return TokenizedExample(example.input_ids[:length], example.labels[:length], cut)


def truncate_row(examples: Sequence[TokenizedExample], length: int) -> list[TokenizedExample]:
    """Return the examples of a row with their first ``length`` tokens, if any of these is learned.

    If a later example is lost, the last one that is left counts as cut.
    """
    shortened = [truncate(example, length) for example in examples]
    kept = [example for example in shortened if set(example.labels) - {IGNORE_INDEX}]
    if kept and len(kept) < len(examples):
        kept[-1] = kept[-1]._replace(cut=True)
    return kept
