"""Stop sequences: a completion ends with the token that completes the first of them.

vLLM gets the stop sequences as an argument. transformers gets a stopping criterion that decodes the
end of each completion, so that generation ends when all completions of a batch have ended. Tokens
that were sampled for a completion after its own stop sequence are removed afterwards.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

_SPARE_TOKENS: Final = 8
"""Tokens decoded beyond the longest stop sequence: some tokens have no text."""


def text_until_stop(tokenizer: Any, ids: Sequence[int], stops: Sequence[str]) -> str:
    """Return a completion as text, up to the first stop sequence and without it."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def ids_until_stop(tokenizer: Any, ids: list[int], stops: Sequence[str]) -> list[int]:
    """Return the tokens of a completion up to the one that completes a stop sequence."""

    def has_stop(count: int) -> bool:
        return _contains_stop(tokenizer.decode(ids[:count], skip_special_tokens=True), stops)

    if not stops or not has_stop(len(ids)):
        return ids
    return ids[: bisect_left(range(len(ids)), True, key=has_stop)]


def _contains_stop(text: str, stops: Sequence[str]) -> bool:
    return any(stop in text for stop in stops)


@contextmanager
def stop_criteria_installed(model: Any, tokenizer: Any, stops: Sequence[str]) -> Iterator[None]:
    """Make ``model.generate`` of transformers end completions at ``stops``.

    TRL passes neither criteria nor the tokenizer that the argument ``stop_strings`` needs.
    """
    if not stops:
        yield
        return
    generate = model.generate

    def generate_until_stop(**inputs: Any) -> Any:
        prompt_length = inputs["input_ids"].shape[1]
        criterion = stop_criterion(tokenizer, stops, prompt_length)
        return generate(**inputs, stopping_criteria=[criterion])

    model.generate = generate_until_stop
    try:
        yield
    finally:
        del model.generate  # makes the method of the class visible again


def stop_criterion(tokenizer: Any, stops: Sequence[str], prompt_length: int) -> Callable[..., Any]:
    """Return a stopping criterion for transformers: token ids (batch, length) to bool (batch).

    The first ``prompt_length`` tokens of every row were not sampled. Only the end of a row is
    decoded, after each token: a stop sequence is completed by the newest token.
    """
    # A token with text has at least one byte of it.
    window = max(len(stop.encode()) for stop in stops) + _SPARE_TOKENS

    def has_ended(ids: Any, *_: Any, **__: Any) -> Any:
        start = max(prompt_length, ids.shape[1] - window)
        texts = tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)
        return ids.new_tensor([_contains_stop(text, stops) for text in texts]).bool()

    return has_ended
