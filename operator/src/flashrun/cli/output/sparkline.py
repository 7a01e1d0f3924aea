"""A curve in one line of text, and the characters that a terminal can show it with."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple


class Glyphs(NamedTuple):
    """The characters that drawings are made of."""

    ramp: str
    """From the lowest value to the highest."""
    done: str
    """The part of a bar that is done."""
    open: str
    """The rest of the bar."""
    replaced: dict[int, str]
    """What stands in texts instead of characters that the terminal does not have."""


UNICODE: Final = Glyphs("▁▂▃▄▅▆▇█", "█", "░", {})
ASCII: Final = Glyphs("_.:-=+*#", "#", ".", str.maketrans({"·": "-", "…": "...", "→": "->"}))


def glyphs_for(encoding: str | None) -> Glyphs:
    """Return the best characters that an output with this encoding has."""
    try:
        f"{UNICODE.ramp}{UNICODE.open}·…→".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def sparkline(values: Iterable[float], width: int, glyphs: Glyphs = UNICODE) -> str:
    """Return the curve of ``values`` in at most ``width`` characters, one per value if they fit.

    More values than characters are averaged in groups of equal size. Values that are not finite
    are left out. A constant curve is drawn at the middle.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width < 1:
        return ""
    means = _averaged(finite, width)
    lowest, highest = min(means), max(means)
    top = len(glyphs.ramp) - 1
    # Halves, as the difference of two finite values may be infinite.
    span = highest / 2 - lowest / 2
    if span == 0:
        return glyphs.ramp[top // 2] * len(means)
    return "".join(glyphs.ramp[round((mean / 2 - lowest / 2) / span * top)] for mean in means)


def bar(fraction: float, width: int, glyphs: Glyphs = UNICODE) -> str:
    """Return a bar of ``width`` characters of which ``fraction`` is done."""
    done = round(min(max(fraction, 0.0), 1.0) * width)
    return glyphs.done * done + glyphs.open * (width - done)


def _averaged(values: Sequence[float], groups: int) -> list[float]:
    """Return the means of as many groups of neighbours; the values themselves if they are fewer."""
    count = len(values)
    if count <= groups:
        return list(values)
    edges = [index * count // groups for index in range(groups + 1)]
    return [
        math.fsum(value / (end - begin) for value in values[begin:end])
        for begin, end in itertools.pairwise(edges)
    ]
