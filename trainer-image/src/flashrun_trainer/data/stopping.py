"""Stop sequences: a completion ends with the token that completes the first of them.

vLLM is told them. transformers gets a criterion that looks at the end of what it has sampled, so
that it does not go on when all of a portion have ended; what it has sampled for one that had ended
before the others is cut away.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

_SPARE_TOKENS: Final = 8
"""Tokens that are looked at beyond those of the longest stop sequence: some have no text."""


def text_until(tokenizer: Any, ids: Sequence[int], stops: Sequence[str]) -> str:
    """Return what was sampled as text, up to the first stop sequence."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def ids_until(tokenizer: Any, ids: list[int], stops: Sequence[str]) -> list[int]:
    """Return the tokens up to the one that completes a stop sequence."""

    def stopped(count: int) -> bool:
        return _stopped(tokenizer.decode(ids[:count], skip_special_tokens=True), stops)

    if not stops or not stopped(len(ids)):
        return ids
    return ids[: bisect_left(range(len(ids)), True, key=stopped)]


def _stopped(text: str, stops: Sequence[str]) -> bool:
    return any(stop in text for stop in stops)


@contextmanager
def heeded(model: Any, tokenizer: Any, stops: Sequence[str]) -> Iterator[None]:
    """Let ``model.generate`` of transformers end completions at ``stops``.

    TRL passes neither criteria nor the tokenizer that ``stop_strings`` would need.
    """
    if not stops:
        yield
        return
    generate = model.generate

    def until_stopped(**inputs: Any) -> Any:
        prompt = inputs["input_ids"].shape[1]
        return generate(**inputs, stopping_criteria=[criterion(tokenizer, stops, prompt)])

    model.generate = until_stopped
    try:
        yield
    finally:
        del model.generate  # the class still has its own


def criterion(tokenizer: Any, stops: Sequence[str], prompt: int) -> Callable[..., Any]:
    """Return what says of every row of sampled ids (rows, tokens) whether it has ended (rows).

    ``prompt`` tokens come first in every row and were not sampled. Only the end is looked at, once
    a token: what completes a stop sequence is the newest one.
    """
    # A token with text has at least one byte of it.
    window = max(len(stop.encode()) for stop in stops) + _SPARE_TOKENS

    def ended(ids: Any, *_: Any, **__: Any) -> Any:
        begin = max(prompt, ids.shape[1] - window)
        texts = tokenizer.batch_decode(ids[:, begin:], skip_special_tokens=True)
        return ids.new_tensor([_stopped(text, stops) for text in texts]).bool()

    return ended
