"""The parts of a run's metrics in storage: which rows count, and where the next ones go.

Each attempt writes parts of its own and changes no other's. Its name says after which step the
attempt continues: rows of earlier attempts after that step were trained again, and do not count.
A run of an earlier version has one file, ``metrics.jsonl``, which comes before all parts.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from flashrun.api import names

FIRST_PART_BYTES: Final = 256 * 1024
PARTS_PER_SIZE: Final = 256
SIZES: Final = 4
MOST_PARTS: Final = PARTS_PER_SIZE * SIZES
"""Most parts of one attempt."""


def part_bytes(number: int) -> int | None:
    """Return how long part ``number`` of an attempt becomes before the next one begins.

    Sizes double, so that long histories have a bounded number of parts. The last one takes what is
    left: None.
    """
    if number >= MOST_PARTS - 1:
        return None
    return int(FIRST_PART_BYTES * 2 ** (number // PARTS_PER_SIZE))


class StoredPart(NamedTuple):
    """A part, or the one file of an earlier version, as a listing has it."""

    key: str
    size: int
    attempt: int
    """0 for the file of an earlier version."""
    after: int
    """The step after which the attempt continues."""
    number: int


def stored_parts(prefix: str, entries: Iterable[tuple[str, int]]) -> list[StoredPart]:
    """Return the parts among the keys and sizes of a listing, in the order of their rows."""
    parts = []
    for key, size in entries:
        if key == names.metrics_key(prefix):
            parts.append(StoredPart(key, size, 0, 0, 0))
        elif (place := names.parse_metrics_part_key(prefix, key)) is not None:
            parts.append(StoredPart(key, size, *place))
    return sorted(parts, key=lambda part: (part.attempt, part.number))


def last_steps(parts: Sequence[StoredPart]) -> dict[int, int | None]:
    """Return for each attempt the last step whose rows count; None: all of them."""
    steps: dict[int, int | None] = {}
    last: int | None = None
    for part in reversed(parts):
        if part.attempt in steps:
            continue
        steps[part.attempt] = last
        last = part.after if last is None else min(last, part.after)
    return steps
