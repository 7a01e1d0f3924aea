"""How a chat template ends an assistant's turn, and with which token generation therefore ends.

Templates differ. Most write one token after a turn (``<|im_end|>``), some two of which the second
ends generation (Cohere 2), some another one at the end of the conversation than in its middle
(gpt-oss), some end the text with a token that is not of the turn (Phi-3), and some write nothing,
so that the token which opens the next message is the end (GLM-4). Short conversations are rendered
to find out.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from flashrun_trainer.data.chat_template import common_length, render
from flashrun_trainer.data.messages import Message
from flashrun_trainer.pod.trainer_errors import TrainerError

_ANSWER: Final = "the answer of a probe"
_QUESTION: Final[Message] = {"role": "user", "content": "?"}
_CALL: Final[Message] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "probe", "arguments": {}}}],
}
_RESULT: Final[Message] = {"role": "tool", "name": "probe", "content": "!"}


class TurnEnds(NamedTuple):
    """What a template writes after an assistant's turn."""

    closing: str
    """The text after an answer that is the last message, such as ``<|im_end|>`` and a newline."""
    end: str
    """The text between an answer and the end of its generation, which is an added token."""
    call_end: str
    """The same for a tool call; empty when the call's own text ends with that token."""
    history_end: str
    """The text that ends an answer when other messages follow; empty when nothing does."""

    def cut(self, turn: str, is_call: bool, added: re.Pattern[str]) -> str:
        """Return a rendered last turn up to the token that ends its generation."""
        if not added.search(self.closing):
            return turn.removesuffix(self.closing) + (self.call_end if is_call else self.end)
        if turn.endswith(self.closing):
            return turn.removesuffix(self.closing) + self.end
        # Another end than that of an answer: gpt-oss and Gemma 4 end calls with other tokens.
        *_, last = [match.end() for match in added.finditer(turn)] or [0]
        return turn[:last] if last and not turn[last:].strip() else turn + self.end

    def without_second(self, turn: str) -> str:
        """Return a cut turn with a single end: rows may have written one after their answer."""
        end = self.end.strip()
        while end and (before := turn.removesuffix(self.end).rstrip()).endswith(end):
            turn = before
        return turn


def end_of_turn_token(tokenizer: Any, thinking: bool) -> int:
    """Return the id of the token that ends the generation of an answer.

    It may differ from the end-of-sequence token: some models end generation at several tokens.
    """
    end = turn_ends(tokenizer, thinking).end
    *_, last = added_tokens(tokenizer).findall(end) or [tokenizer.eos_token]
    return int(tokenizer.convert_tokens_to_ids(last))


def added_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Return a pattern that matches the added tokens which the template writes.

    Those that it never writes say nothing about its turns, and a tokenizer may have thousands.
    """
    return _added_tokens(tokenizer, str(tokenizer.chat_template), len(tokenizer))


@lru_cache(maxsize=8)
def _added_tokens(tokenizer: Any, template: str, size: int) -> re.Pattern[str]:
    """``template`` and ``size``, of the vocabulary, are keys of the cache: both may change."""
    try:
        written = template + text_after_answer(tokenizer, (_QUESTION,), thinking=True)
    except TrainerError:
        written = template
    contents = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        # White space may be a token of its own, but it never marks a turn.
        if token.content in written and token.content.strip("\u2581 \t\r\n")
    }
    contents |= {tokenizer.eos_token, tokenizer.bos_token or tokenizer.eos_token}
    return re.compile("|".join(map(re.escape, sorted(contents, key=len, reverse=True))))


def turn_ends(tokenizer: Any, thinking: bool) -> TurnEnds:
    """Return how the template ends an assistant's turn.

    Raises:
        TrainerError: the template refuses an answer to a question.
    """
    template = str(tokenizer.chat_template)
    return _find_turn_ends(tokenizer, template, added_tokens(tokenizer), thinking)


@lru_cache(maxsize=8)
def _find_turn_ends(
    tokenizer: Any, template: str, added: re.Pattern[str], thinking: bool
) -> TurnEnds:
    """``template`` and ``added`` are keys of the cache: a tokenizer's template may be replaced."""
    closing = text_after_answer(tokenizer, (), thinking)
    try:
        followed = text_after_answer(tokenizer, (_QUESTION,), thinking)
    except TrainerError:
        followed = closing
    shared = [match.end() for match in added.finditer(closing[: common_length(closing, followed)])]
    first, first_followed = added.search(closing), added.match(followed)
    if shared:
        end = history_end = closing[: shared[-1]]
    elif first:
        end = closing[: first.end()]
        history_end = first_followed.group() if first_followed else ""
    else:
        end, history_end = _opening_token(tokenizer, added, followed), ""
    has_end = bool(shared or first)
    call_end = "" if has_end else _call_end(tokenizer, added, thinking) or end
    return TurnEnds(closing, end, call_end, history_end)


def text_after_answer(tokenizer: Any, replies: Sequence[Message], thinking: bool) -> str:
    """Return what the template writes after an answer to which these messages reply.

    With replies, that includes the opening of the next answer.

    Raises:
        TrainerError: the template refuses the messages.
    """
    answer: Message = {"role": "assistant", "content": _ANSWER}
    messages = [_QUESTION, answer, *replies]
    text = render(tokenizer, messages, thinking, add_generation_prompt=bool(replies))
    _, _, after = text.rpartition(_ANSWER)
    return after


def _call_end(tokenizer: Any, added: re.Pattern[str], thinking: bool) -> str:
    """Return the token that opens the message after a tool call; empty when there is none."""
    try:
        called = render(tokenizer, [_QUESTION, _CALL], thinking, False)
        replied = render(tokenizer, [_QUESTION, _CALL, _RESULT], thinking, False)
    except TrainerError:
        return ""
    return _opening_token(tokenizer, added, replied[common_length(called, replied) :])


def _opening_token(tokenizer: Any, added: re.Pattern[str], text: str) -> str:
    """Return the added token with which a message begins, or else the end-of-sequence token."""
    match = added.match(text.lstrip())
    is_end = match is not None and match.group() != tokenizer.bos_token
    return match.group() if match is not None and is_end else str(tokenizer.eos_token)
