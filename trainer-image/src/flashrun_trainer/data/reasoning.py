"""Reasoning: where it begins and ends in what a model writes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

_TAG: Final = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")


@dataclass(frozen=True)
class ReasoningForm:
    """How a model marks its reasoning, and the answer after it."""

    start: str = "<think>"
    """The text before the reasoning, such as ``<|channel|>analysis<|message|>``."""
    end: str = "</think>"
    """The tag after the reasoning."""
    answer_start: str = ""
    """The text before an answer, such as ``<|channel|>final<|message|>``; empty for none."""
    closing: str = "\n</think>\n\n"
    """The text between the reasoning and the answer: the end tag and the space around it."""

    @property
    def is_channel(self) -> bool:
        """Whether reasoning has a channel of its own, and is never part of an answer."""
        return self.start != THINK.start

    @property
    def tags(self) -> frozenset[str]:
        """The tags in these texts; a tokenizer may have them as special tokens."""
        return frozenset(tags_in(f"{self.start} {self.end} {self.answer_start}"))

    def is_opened_by(self, prompt: str, continues: bool = False) -> bool:
        """Return whether a prompt ends with open reasoning, which the completion continues.

        ``continues`` is True when the completion is the rest of a turn that the prompt has begun.
        """
        _, opened, inside = prompt.rpartition(self.start)
        return bool(opened) and (self.end not in inside if continues else not inside.strip())

    def split(self, text: str, opened: bool = False) -> tuple[str, str]:
        """Return the reasoning and the answer in a text; both keep the white space around them.

        ``opened`` is True when the prompt has opened the reasoning. Reasoning that does not end
        leaves no answer.
        """
        if self.answer_start and self.answer_start in text:
            before, _, answer = text.rpartition(self.answer_start)
            before = before.rpartition(self.end)[0] or before
            is_reasoned = opened or self.start in before
            return self._inside(before, opened) if is_reasoned else "", answer.split(self.end)[0]
        before, closed, after = text.rpartition(self.end)
        if closed:
            return self._inside(before, opened), after
        is_reasoned = opened or self.start in text
        return (self._inside(text, opened), "") if is_reasoned else ("", text)

    def _inside(self, text: str, opened: bool) -> str:
        _, tag, inside = text.partition(self.start)
        return inside if tag and not opened else text


def tags_in(text: str) -> list[str]:
    """Return the tags in a text, such as ``<think>`` or ``[THINK]``, in order."""
    return _TAG.findall(text)


THINK: Final = ReasoningForm()
"""Tags in the text, as most models write them."""


def decode(tokenizer: Any, ids: Sequence[int], form: ReasoningForm = THINK) -> str:
    """Return token ids as text, without special tokens, apart from the tags of reasoning."""
    tags = _special_tags(tokenizer, form)
    pieces = (
        tag * len(list(run)) if tag else str(tokenizer.decode(list(run), skip_special_tokens=True))
        for tag, run in groupby(ids, key=lambda token: tags.get(token, ""))
    )
    return "".join(pieces)


@lru_cache(maxsize=8)
def _special_tags(tokenizer: Any, form: ReasoningForm) -> Mapping[int, str]:
    """Return the tags of reasoning that are special tokens of the tokenizer, by their ids."""
    added = tokenizer.added_tokens_decoder.items()
    return {i: token.content for i, token in added if token.special and token.content in form.tags}
