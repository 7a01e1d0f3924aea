"""Divide rows into those to train on and held-out ones, which training must not have seen."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

HELD_OUT_SHARE = 10
"""One row in so many is held out, where nothing else is asked for."""
HELD_OUT_LIMIT = 64
"""Most rows that are held out where nothing else is asked for: an evaluation takes no more."""


class RowSplit(NamedTuple):
    """Indexes of rows."""

    train: tuple[int, ...]
    """In the order of the file."""
    held_out: tuple[int, ...]
    """In random order, as an evaluation may take only the first ones of a sorted file."""


def split_rows(
    prompts: Sequence[tuple[str, ...]], count: int | None = None, seed: int = 0
) -> RowSplit:
    """Divide rows, given by their prompts, so that rows with equal prompts are on the same side.

    ``count`` is how many rows to hold out; None means a tenth, at most 64. At most half of the rows
    are held out, and none where every prompt has more rows than that. A prompt's place depends only
    on its text and ``seed``, so most held-out rows stay held out when rows are added.
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        groups[_digest(seed, prompt)].append(index)
    left = _default_count(len(prompts)) if count is None else count
    left = min(left, len(prompts) // 2)
    held_out: list[int] = []
    for _, rows in sorted(groups.items()):
        if len(rows) <= left:
            held_out += rows
            left -= len(rows)
    chosen = set(held_out)
    train = (index for index in range(len(prompts)) if index not in chosen)
    return RowSplit(tuple(train), tuple(held_out))


def _default_count(rows: int) -> int:
    return min(HELD_OUT_LIMIT, -(-rows // HELD_OUT_SHARE))


def _digest(seed: int, prompt: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join((str(seed), *prompt)).encode()).hexdigest()
