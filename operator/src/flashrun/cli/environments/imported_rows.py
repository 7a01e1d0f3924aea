"""A user's file of rows, read into the splits of a dataset, with what was left out of it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from flashrun.archive import UNPACKED_LIMIT
from flashrun.cli.environments.row_files import SourceRow, open_rows
from flashrun.cli.environments.row_formats import (
    FORMATS_HINT,
    KNOWN_KEYS,
    FormattedRow,
    RowFormat,
    RowRefusal,
    read_formatted_row,
)
from flashrun.cli.environments.row_split import RowSplit, split_rows
from flashrun.cli.output.failure import UsageFailure

LISTED: Final = 1000
"""Most rows that are left out and listed one by one."""


class DroppedRow(NamedTuple):
    """A row that is left out of the dataset."""

    number: int
    key: str
    """The key that is wrong; empty when it is the row itself."""
    why: str

    def __str__(self) -> str:
        """Return the sentence for people."""
        return ": ".join(filter(None, (f"row {self.number}", self.key, self.why)))


class UnreadKey(NamedTuple):
    """A key that rows have and nobody reads."""

    key: str
    rows: int
    first: int
    """The number of the first row that has it; 0 for a column that was not read at all."""

    def __str__(self) -> str:
        """Return the key with how many rows have it, for people."""
        if not self.first:
            return f"{self.key} (a column)"
        return f"{self.key} ({_count(self.rows, 'row')}, the first is row {self.first})"


@dataclass(frozen=True)
class ImportedRows:
    """What a file became."""

    kind: str
    """What the file is, such as JSON Lines."""
    rows: int
    """Rows in the file."""
    formats: Mapping[RowFormat, int]
    """How many rows of each format are learned."""
    train: tuple[str, ...]
    """Lines of the file of the split."""
    held_out: tuple[str, ...]
    dropped: tuple[DroppedRow, ...]
    """The first rows that were left out."""
    dropped_count: int
    unread: tuple[UnreadKey, ...]
    with_tools: int
    with_reasoning: int
    shared_prompts: int
    """Rows whose prompt another row has, too."""
    longest: int
    """Characters of the longest row."""

    @property
    def learned(self) -> int:
        """How many rows are learned or held out."""
        return len(self.train) + len(self.held_out)

    def sentences(self, path: Path, shown: int = 10) -> list[str]:
        """Return what was understood and what was left out, a sentence per line."""
        formats = ", ".join(f"{count} as {form}" for form, count in self.formats.items())
        lines = [f"read {_count(self.rows, 'row')} of {path} ({self.kind}): {formats}"]
        if self.with_tools:
            lines.append(f"{_count(self.with_tools, 'row')} with tools")
        if self.with_reasoning:
            lines.append(f"{_count(self.with_reasoning, 'row')} with reasoning in the answer")
        lines += [f"left out {row}" for row in self.dropped[:shown]]
        if self.dropped_count > shown:
            more = _count(self.dropped_count - shown, "more row")
            lines.append(f"left out {more}; -o json lists the first {LISTED:,}")
        if self.unread:
            listed = ", ".join(map(str, self.unread[:shown]))
            more = f" and {len(self.unread) - shown} more" if len(self.unread) > shown else ""
            lines.append(f"keys that nobody reads: {listed}{more}")
        if self.shared_prompts:
            rows = _count(self.shared_prompts, "row")
            lines.append(f"{rows} with the prompt of another row; equal prompts are in one split")
        lines.append(
            f"{_count(len(self.train), 'row')} to train on, {len(self.held_out)} held out"
            if self.held_out
            else f"{_count(len(self.train), 'row')} to train on; no row is held out, so runs are "
            "not evaluated"
        )
        return lines

    def data(self) -> dict[str, Any]:
        """Return the same for programs."""
        return {
            "kind": self.kind,
            "rows": self.rows,
            "formats": {str(form): count for form, count in self.formats.items()},
            "train": len(self.train),
            "eval": len(self.held_out),
            "tools": self.with_tools,
            "reasoning": self.with_reasoning,
            "sharedPrompts": self.shared_prompts,
            "dropped": self.dropped_count,
            "droppedRows": [
                {"row": row.number, "key": row.key, "why": row.why} for row in self.dropped
            ],
            "unreadKeys": [
                {"key": key.key, "rows": key.rows, "firstRow": key.first or None}
                for key in self.unread
            ],
        }


def import_rows(path: Path, held_out: int | None = None, seed: int = 0) -> ImportedRows:
    """Read a file of rows in any known format, and divide it into two splits.

    ``held_out`` is the number of held-out rows; None means a tenth, at most 64.

    Raises:
        UsageFailure: the file cannot be read, is too large, or has no row that can be learned.
    """
    file = open_rows(path, KNOWN_KEYS)
    reading = _Reading()
    for row in file.rows:
        reading.add(row)
        if reading.size > UNPACKED_LIMIT:
            raise UsageFailure(
                f"{path} has rows of more than {UNPACKED_LIMIT:,} bytes, the most that a package "
                "of an environment may have",
                "take fewer rows",
            )
    if not reading.lines:
        raise _nothing_learned(path, reading)
    split = split_rows(reading.prompts, held_out, seed)
    return reading.result(file.kind, split, file.unread_columns)


def _nothing_learned(path: Path, reading: "_Reading") -> UsageFailure:
    if not reading.rows:
        return UsageFailure(f"{path} has no rows", FORMATS_HINT)
    return UsageFailure(
        f"none of the {_count(reading.rows, 'row')} of {path} can be learned: {reading.dropped[0]}",
        FORMATS_HINT,
    )


class _Reading:
    """The rows of a file so far."""

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self.lines: list[str] = []
        self.prompts: list[tuple[str, ...]] = []
        self.dropped: list[DroppedRow] = []
        self._dropped_count = 0
        self._formats: Counter[RowFormat] = Counter()
        self._unread: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self._with_tools = self._with_reasoning = self._longest = 0

    def add(self, source: SourceRow) -> None:
        """Read one row, or note why it is left out."""
        self.rows += 1
        try:
            if source.fault:
                raise RowRefusal("", source.fault)
            row = read_formatted_row(source.value)
        except RowRefusal as refusal:
            self._dropped_count += 1
            if len(self.dropped) < LISTED:
                self.dropped.append(DroppedRow(source.number, refusal.key, refusal.why))
            return
        self._keep(source.number, row)

    def _keep(self, number: int, row: FormattedRow) -> None:
        line = json.dumps(row.row, ensure_ascii=False)
        self.lines.append(line)
        self.size += len(line.encode()) + 1
        self.prompts.append(row.prompt)
        self._formats[row.format] += 1
        self._with_tools += "tools" in row.row
        self._with_reasoning += row.reasons
        self._longest = max(self._longest, row.characters)
        for key in row.unread:
            self._unread[key] += 1
            self._first.setdefault(key, number)

    def result(self, kind: str, split: RowSplit, columns: Iterable[str]) -> ImportedRows:
        """Return the rows in their splits."""
        counts = Counter(self.prompts)
        unread = [UnreadKey(key, count, self._first[key]) for key, count in self._unread.items()]
        return ImportedRows(
            kind=kind,
            rows=self.rows,
            formats=dict(self._formats.most_common()),
            train=tuple(self.lines[index] for index in split.train),
            held_out=tuple(self.lines[index] for index in split.held_out),
            dropped=tuple(self.dropped),
            dropped_count=self._dropped_count,
            unread=(*unread, *(UnreadKey(column, 0, 0) for column in columns)),
            with_tools=self._with_tools,
            with_reasoning=self._with_reasoning,
            shared_prompts=sum(count for count in counts.values() if count > 1),
            longest=self._longest,
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
