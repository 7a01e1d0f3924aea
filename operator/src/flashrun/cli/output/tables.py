"""Tables as values: cells with a tone, which the terminal turns into colours."""

from enum import Enum
from typing import NamedTuple


class Tone(Enum):
    """The kind of a text; the terminal has a style for each."""

    PLAIN = "plain"
    TITLE = "title"
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
    dispensable: tuple[str, ...] = ()
    """Columns that a narrow terminal does without, the first of them first.

    A table that names some has one line per row; the cells of others are folded.
    """

    def fitted(self, width: int) -> "Table":
        """Return the table with as many columns as fit ``width`` characters."""
        table = self
        for name in self.dispensable:
            if table.width <= width:
                break
            table = table.without(name)
        return table

    def without(self, name: str) -> "Table":
        """Return the table without one column."""
        index = self.header.index(name)
        return self._replace(
            header=self.header[:index] + self.header[index + 1 :],
            rows=tuple(row[:index] + row[index + 1 :] for row in self.rows),
        )

    @property
    def width(self) -> int:
        """Characters of the widest row, with two spaces between columns."""
        columns = zip(self.header, *([cell.text for cell in row] for row in self.rows), strict=True)
        return sum(max(map(len, column)) + 2 for column in columns) - 2


def plain_rows(table: Table) -> list[str]:
    """Return one line per row with cells separated by tabs, for pipes."""
    return ["\t".join(cell.text for cell in row) for row in table.rows]
