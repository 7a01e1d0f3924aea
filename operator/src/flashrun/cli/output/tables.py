"""Tables as values: cells with a tone, which the terminal turns into colours."""

from enum import Enum
from typing import Final, NamedTuple

_SHORT_WORD: Final = 6
_SEPARATORS: Final = str.maketrans(dict.fromkeys("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029", " "))
"""What a reader of lines and tabs would take for the end of a cell, and what it becomes."""


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
        """Return the table with as many columns as fit ``width`` characters.

        The first column, which has the names, stays whole. A table whose cells are folded does
        without its last columns when they would be narrower than a short word.
        """
        table = self
        if not self.dispensable:
            while len(table.header) > 1 and table.narrowest > width:
                table = table.without(table.header[-1])
            return table
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
        return sum(width + 2 for width in self._widths()) - 2

    @property
    def narrowest(self) -> int:
        """Characters of the widest row when all cells but the first of each row are folded."""
        first, *others = self._widths()
        return first + sum(min(width, _SHORT_WORD) + 2 for width in others)

    def column_width(self, number: int) -> int:
        """Characters of the widest cell of a column, its name included."""
        return self._widths()[number]

    def _widths(self) -> list[int]:
        columns = zip(self.header, *([cell.text for cell in row] for row in self.rows), strict=True)
        return [max(map(len, column)) for column in columns]


def plain_rows(table: Table) -> list[str]:
    """Return one line per row with cells separated by tabs, for pipes."""
    return ["\t".join(cell.text.translate(_SEPARATORS) for cell in row) for row in table.rows]
