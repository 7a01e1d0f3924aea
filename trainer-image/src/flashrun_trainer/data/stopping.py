"""Stop sequences: a completion ends with the token that completes the first of them.

vLLM gets the stop sequences as an argument. transformers gets a stopping criterion that decodes the
end of each completion, so that generation ends when all completions of a batch have ended. Tokens
that were sampled for a completion after its own stop sequence are removed afterwards.

Decoded text does not contain special tokens such as ``<|im_start|>``. If a stop sequence contains
one, stop sequences are looked for in the text with special tokens, by both engines.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from flashrun.api.records import ResolvedTrain
from flashrun_trainer.data.reasoning import THINK, ReasoningForm, decode

_SPARE_TOKENS: Final = 8
"""Tokens decoded beyond the longest stop sequence: some tokens have no text."""


def text_until_stop(
    tokenizer: Any, ids: Sequence[int], stops: Sequence[str], form: ReasoningForm = THINK
) -> str:
    """Return a completion as text, with the tags of reasoning, up to the first stop sequence."""
    count, rest = _before_stop(tokenizer, ids, stops)
    return decode(tokenizer, ids[:count], form) + rest


def ids_until_stop(tokenizer: Any, ids: list[int], stops: Sequence[str]) -> list[int]:
    """Return the tokens of a completion up to the one that completes a stop sequence."""

    def has_stop(count: int) -> bool:
        return _contains_stop(_searched_text(tokenizer, ids[:count], stops), stops)

    if not stops or not has_stop(len(ids)):
        return ids
    return ids[: bisect_left(range(len(ids)), True, key=has_stop)]


def _before_stop(tokenizer: Any, ids: Sequence[int], stops: Sequence[str]) -> tuple[int, str]:
    """Return how many tokens end before the first stop sequence, and the text between."""
    text = _searched_text(tokenizer, ids, stops)
    places = [text.index(stop) for stop in stops if stop in text]
    if not places:
        return len(ids), ""

    def text_of(count: int) -> str:
        return _searched_text(tokenizer, ids[:count], stops)

    count = bisect_right(range(len(ids)), min(places), key=lambda count: len(text_of(count))) - 1
    while not text.startswith(text_of(count)):  # in the middle of a character
        count -= 1
    if ids[count] in special_tokens(tokenizer):
        return count, ""
    return count, text[len(text_of(count)) : min(places)]


def masks_cut_off(tokenizer: Any, train: ResolvedTrain) -> bool:
    """Return whether completions that max_tokens cuts off are not learned.

    They have no end to learn. With stop sequences, the completions that end as the config wants do
    not end with a token of the model either, and all are learned. Stop sequences that no completion
    can contain do not count.
    """
    return len(impossible_stops(tokenizer, train)) == len(train.stop_sequences or ())


def impossible_stops(tokenizer: Any, train: ResolvedTrain) -> list[str]:
    """Return the stop sequences of a run that no completion can contain."""
    stops = train.stop_sequences or ()
    return [stop for stop in stops if not can_occur(tokenizer, stop, train.max_tokens or 0)]


def can_occur(tokenizer: Any, stop: str, max_tokens: int) -> bool:
    """Return whether a completion of at most ``max_tokens`` tokens can contain ``stop``.

    It cannot if the vocabulary has no tokens for it: encoded and decoded, it is another text.
    """
    for before in ("", "a"):  # some tokenizers drop a space at the beginning of a text
        ids = tokenizer(before + stop, add_special_tokens=False)["input_ids"]
        if len(ids) <= max_tokens + len(before) and stop in _searched_text(tokenizer, ids, [stop]):
            return True
    return False


def vllm_arguments(tokenizer: Any, stops: Sequence[str]) -> dict[str, Any] | None:
    """Return what vLLM's sampling parameters need to end completions at ``stops``."""
    if not stops:
        return None
    return {"stop": list(stops), "skip_special_tokens": not _names_special(tokenizer, stops)}


@lru_cache(maxsize=4)
def special_tokens(tokenizer: Any) -> Mapping[int, str]:
    """Return the tokens that are left out of decoded text, by id."""
    added = tokenizer.added_tokens_decoder.items()
    return {token_id: token.content for token_id, token in added if token.special}


def _names_special(tokenizer: Any, stops: Sequence[str]) -> bool:
    """Return whether one of ``stops`` contains a special token."""
    return any(token in stop for token in special_tokens(tokenizer).values() for stop in stops)


def _searched_text(tokenizer: Any, ids: Sequence[int], stops: Sequence[str]) -> str:
    """Return the text in which ``stops`` are looked for; with special tokens if one names them."""
    skips = not _names_special(tokenizer, stops)
    return str(tokenizer.decode(ids, skip_special_tokens=skips))


def _contains_stop(text: str, stops: Sequence[str]) -> bool:
    return any(stop in text for stop in stops)


def stop_criterion(tokenizer: Any, stops: Sequence[str], prompt_length: int) -> Callable[..., Any]:
    """Return a stopping criterion for transformers: token ids (batch, length) to bool (batch).

    The first ``prompt_length`` tokens of every row were not sampled. Only the end of a row is
    decoded, after each token: a stop sequence is completed by the newest token.
    """
    # A token with text has at least one byte of it.
    window = max(len(stop.encode()) for stop in stops) + _SPARE_TOKENS
    skips = not _names_special(tokenizer, stops)

    def has_ended(ids: Any, *_: Any, **__: Any) -> Any:
        start = max(prompt_length, ids.shape[1] - window)
        texts = tokenizer.batch_decode(ids[:, start:], skip_special_tokens=skips)
        return ids.new_tensor([_contains_stop(text, stops) for text in texts]).bool()

    return has_ended
