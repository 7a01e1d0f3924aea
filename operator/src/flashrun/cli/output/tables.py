"""Tables, before anything decides how they are shown: cells with a tone, no colours yet."""

from enum import Enum
from typing import NamedTuple


class Tone(Enum):
    """What a piece of text is, for colouring."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    ACTIVE = "active"
    QUIET = "quiet"


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    tone: Tone = Tone.PLAIN


class Table(NamedTuple):
    """A header and rows of as many cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def plain_rows(table: Table) -> list[str]:
    """Return one line a record, cells separated by tabs, for pipes."""
    return ["\t".join(cell.text for cell in row) for row in table.rows]
