"""Messages as tokens: what the model's chat template writes, and which of it is to be learned.

That is what the assistant says in a completion; prompt, user and tool messages are context.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.data.environment import Message, shown
from flashrun_trainer.data.packing import IGNORED
from flashrun_trainer.pod.trainer_errors import TrainerError, sentence


class Row(NamedTuple):
    """One example as token ids, with the ids to learn as labels."""

    input_ids: list[int]
    labels: list[int]
    cut: bool = False
    """Whether something that was to be learned did not fit."""


def row_of(tokenizer: Any, prompt: list[Message], completion: list[Message], thinking: bool) -> Row:
    """Return the whole conversation as token ids, with the assistant's part of it as labels.

    A turn begins behind what the template writes to ask for an answer. What that holds, such as an
    empty pair of think tags, is not learned; nor is what comes behind the end-of-turn token, which
    ends generation.

    Raises:
        TrainerError: the template refuses the messages.
    """
    messages = [*prompt, *completion]
    end = turn_end(tokenizer, thinking)
    asked = token_ids(tokenizer, prompt, thinking, answer=True)
    if len(completion) == 1:
        whole = token_ids(tokenizer, messages, thinking, answer=False)
        turns = [(common_length(asked, whole), _end(whole, end))]
    else:
        unasked = token_ids(tokenizer, prompt, thinking, answer=False)
        found = _Dialogue(tokenizer, messages, thinking, asked[common_length(unasked, asked) :])
        whole = found.ids
        turns = [
            found.turn(index, end)
            for index in range(len(prompt), len(messages))
            if messages[index]["role"] == "assistant"
        ]
    labels = [IGNORED] * len(whole)
    for begin, stop in turns:
        labels[begin:stop] = whole[begin:stop]
    return Row(whole, labels)


class _Dialogue:
    """A conversation with several turns of the assistant, and where each of them lies.

    Templates render a turn in the middle otherwise than at the end, with all turns before it, so
    the conversation up to the turn says nothing about its place. What stays the same when the
    assistant says something else there is what comes before and after. That is compared as text:
    tokenizing the conversation once a turn would take seconds.
    """

    def __init__(
        self, tokenizer: Any, messages: list[Message], thinking: bool, opening: list[int]
    ) -> None:
        self._tokenizer, self._messages, self._thinking = tokenizer, messages, thinking
        self._opening = opening
        self._text = text_of(tokenizer, messages, thinking, answer=False)
        found = tokenizer(self._text, add_special_tokens=False, return_offsets_mapping=True)
        self.ids: list[int] = found["input_ids"]
        self._begins, self._ends = zip(*found["offset_mapping"], strict=True)

    def turn(self, index: int, end: int) -> tuple[int, int]:
        """Return where the turn begins and ends among the tokens, its end-of-turn token included.

        ``end`` is that token.
        """
        before, after = self._around(index)
        parted = bisect_right(self._ends, before)
        backwards = range(parted - 1, -1, -1)
        opening = self._opening
        opened = next((at for at in backwards if self.ids[at : at + 1] == opening[:1]), parted)
        begin = opened + common_length(opening, self.ids[opened : opened + len(opening)])
        if index + 1 == len(self._messages):
            return begin, _end(self.ids, end)
        stop = bisect_left(self._begins, after)
        return begin, stop + 1 if self.ids[stop : stop + 1] == [end] else stop

    def _around(self, index: int) -> tuple[int, int]:
        """Return where in the text the turn's content begins and ends."""
        messages, text = self._messages, self._text
        said = str(messages[index].get("content") or "").strip()
        other = next(m for m in "#%@" if not said.startswith(m) and not said.endswith(m))
        changed: Message = {"role": "assistant", "content": other}
        variant = text_of(
            self._tokenizer,
            [*messages[:index], changed, *messages[index + 1 :]],
            self._thinking,
            answer=False,
        )
        before = common_length(text, variant)
        return before, len(text) - common_length(text[::-1], variant[::-1])


def turn_end(tokenizer: Any, thinking: bool) -> int:
    """Return the token with which the template ends an assistant's turn.

    It need not be the end-of-sequence token: some models end generation at several.
    """
    return _turn_end(tokenizer, str(tokenizer.chat_template), thinking)


@lru_cache(maxsize=8)
def _turn_end(tokenizer: Any, template: str, thinking: bool) -> int:
    """Do the same, once for each ``template`` that a tokenizer is given."""
    probe: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    ids = token_ids(tokenizer, probe, thinking, answer=False)
    said = max((at for at, token in enumerate(ids) if "!" in tokenizer.decode([token])), default=-1)
    end: int = next(iter(ids[said + 1 :]), tokenizer.eos_token_id)
    return end if end in tokenizer.added_tokens_decoder else int(tokenizer.eos_token_id)


def _end(whole: list[int], end: int) -> int:
    """Return where a last turn ends: behind the last end-of-turn token."""
    return len(whole) - next((i for i, token in enumerate(whole[::-1]) if token == end), 0)


def token_ids(
    tokenizer: Any, messages: Sequence[Message], thinking: bool, answer: bool
) -> list[int]:
    """Return messages as token ids; ``answer`` appends the opening of the assistant's turn.

    Raises:
        TrainerError: the template refuses the messages.
    """
    text = text_of(tokenizer, messages, thinking, answer)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def text_of(tokenizer: Any, messages: Sequence[Message], thinking: bool, answer: bool) -> str:
    """Return messages as the template writes them; ``answer`` as for ``token_ids``.

    Raises:
        TrainerError: the template refuses the messages, or they are no valid Unicode.
    """
    try:
        text = str(
            tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=answer,
                # Always said: templates differ in what they assume.
                enable_thinking=thinking,
            )
        )
    except Exception as error:
        # A template is a program; whatever it raises, it is these messages that it cannot render.
        raise TrainerError(
            Exit.DATA,
            Reason.TEMPLATE_REFUSED,
            f"the model's chat template refuses messages that end with {shown(messages[-1])}: "
            f"{sentence(error)}",
            "change the messages that the environment builds",
        ) from error
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TrainerError(
            Exit.DATA,
            Reason.TEXT_INVALID,
            f"messages that end with {shown(messages[-1])} have half a character (a lone "
            "surrogate), which no tokenizer takes",
            "write the text of the dataset as valid Unicode",
        ) from error
    return text


def common_length(left: Sequence[Any], right: Sequence[Any]) -> int:
    """Return how many tokens, or characters, two sequences have in common at their beginning."""
    shorter = min(len(left), len(right))
    # By halves: comparing slices is much faster than comparing one by one.
    return bisect_left(range(1, shorter + 1), True, key=lambda n: left[:n] != right[:n])


def truncated(row: Row, length: int) -> Row:
    """Return the first ``length`` tokens of a row, as cut when something to learn is lost."""
    lost = any(label != IGNORED for label in row.labels[length:])
    return Row(row.input_ids[:length], row.labels[:length], lost)
