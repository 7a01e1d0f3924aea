"""Tables as values: cells with a tone, which the terminal turns into colours."""

from enum import Enum
from typing import NamedTuple


class Tone(Enum):
    """The kind of a text; the terminal has a style for each."""

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
    """Return one line per row with cells separated by tabs, for pipes."""
    return ["\t".join(cell.text for cell in row) for row in table.rows]
