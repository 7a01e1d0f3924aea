"""Files of rows as people have them: JSON Lines, JSON, CSV and Parquet.

A row that cannot be read is returned with its fault. What makes every row of a file doubtful, such
as an encoding that is not UTF-8, refuses the file.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from flashrun.archive import UNPACKED_LIMIT
from flashrun.cli.output.failure import UsageFailure

ROW_LIMIT: Final = 16 * 1024 * 1024
"""Most bytes of one row of a JSON Lines file, and most characters of a cell of a CSV file."""
_BATCH: Final = 64
"""Rows of a Parquet file in memory at once: a row may be large."""
_DELIMITERS: Final = ",;\t"
_PARQUET_MAGIC: Final = b"PAR1"
_BYTE_ORDER_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK: Final = b"\xef\xbb\xbf"


class SourceRow(NamedTuple):
    """One row of a file."""

    number: int
    """From 1: the line of a JSON Lines file, the record after the header of any other file."""
    value: Any
    fault: str = ""
    """Why the row could not be read; ``value`` is None then."""


class RowFile(NamedTuple):
    """The rows of a file, read while they are iterated over."""

    kind: str
    """What the file is, for people."""
    rows: Iterator[SourceRow]
    unread_columns: tuple[str, ...] = ()
    """Columns of a Parquet file that were not read."""


def open_rows(path: Path, keys: frozenset[str]) -> RowFile:
    """Return the rows of a file; ``keys`` are the columns that mean something.

    Raises:
        UsageFailure: the file cannot be read; also while its rows are iterated over.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise UsageFailure(f"{path} {what}", "give a file of rows to --from")
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError as error:
        raise UsageFailure(f"{path} cannot be read: {error.strerror}") from error
    if not begin:
        raise UsageFailure(f"{path} is empty", "give a file of rows to --from")
    if begin == _PARQUET_MAGIC:
        return _open_parquet(path, keys)
    if begin.startswith(_BYTE_ORDER_MARKS):
        raise UsageFailure(
            f"{path} is UTF-16, and must be UTF-8",
            f"convert it: iconv -f UTF-16 -t UTF-8 {path} > utf-8{path.suffix}",
        )
    readers: dict[str, Callable[[Path, frozenset[str]], RowFile]] = {
        ".jsonl": _open_json,
        ".ndjson": _open_json,
        ".json": _open_json,
        ".csv": _open_csv,
        ".tsv": _open_csv,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageFailure(
            f"{path} is not a Parquet file, and its name does not end in {', '.join(readers)}",
            "name it after what it is",
        )
    return reader(path, keys)


# --- JSON ---------------------------------------------------------------------------------------


def _open_json(path: Path, keys: frozenset[str]) -> RowFile:
    """Return the rows of JSON Lines, or of one JSON list over any number of lines."""
    if _is_one_value(path):
        return RowFile("JSON", _list_rows(path))
    return RowFile("JSON Lines", _line_rows(path))


def _is_one_value(path: Path) -> bool:
    """Return whether a file begins with a list, or with an object that goes on in further lines."""
    with path.open("rb") as file:
        first = next((line for line in _lines(file) if line is None or line.strip()), b"")
    text = (first or b"").removeprefix(_UTF8_MARK).strip()
    if text.startswith(b"[") or path.suffix.lower() != ".json":
        return text.startswith(b"[")
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return True
    return False


def _list_rows(path: Path) -> Iterator[SourceRow]:
    if path.stat().st_size > UNPACKED_LIMIT:
        raise UsageFailure(
            f"{path} is one JSON list of more than {UNPACKED_LIMIT:,} bytes",
            f"write one row per line: jq -c '.[]' {path} > rows.jsonl",
        )
    text = _decode(path, path.read_bytes())
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageFailure(
            f"{path} is not valid JSON: {error}", "write a list of rows, or one row per line"
        ) from error
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    if not isinstance(rows, list):
        raise UsageFailure(
            f"{path} is one JSON object", "write a list of rows, or one row per line"
        )
    yield from (SourceRow(number, row) for number, row in enumerate(rows, 1))


def _line_rows(path: Path) -> Iterator[SourceRow]:
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), 1):
            if line is None:
                yield SourceRow(number, None, f"the row has more than {ROW_LIMIT:,} bytes")
                continue
            text = _decode(path, line, f", line {number}").strip()
            if not text:
                continue
            try:
                yield SourceRow(number, json.loads(text))
            except ValueError as error:
                yield SourceRow(number, None, f"the row is not valid JSON: {error}")
            except RecursionError:
                yield SourceRow(number, None, "the row is nested too deeply")


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the lines of a file; None for one that is too long."""
    while line := file.readline(ROW_LIMIT + 1):
        if len(line) <= ROW_LIMIT:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(ROW_LIMIT)
        yield None


def _decode(path: Path, data: bytes, place: str = "") -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _encoding_failure(path, f"{place}, byte {error.start + 1}") from error


def _encoding_failure(path: Path, place: str) -> UsageFailure:
    return UsageFailure(
        f"{path}{place} is not UTF-8",
        "convert the file, for example from Latin-1: "
        f"iconv -f LATIN1 -t UTF-8 {path} > utf-8{path.suffix}",
    )


# --- CSV ----------------------------------------------------------------------------------------


def _open_csv(path: Path, keys: frozenset[str]) -> RowFile:
    return RowFile("CSV", _csv_rows(path, keys))


def _csv_rows(path: Path, keys: frozenset[str]) -> Iterator[SourceRow]:
    csv.field_size_limit(ROW_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = None
        try:
            delimiter = _delimiter(file.readline(ROW_LIMIT), keys)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = _header(path, next(reader, []))
            for number, cells in enumerate(filter(None, reader), 1):
                yield _csv_row(number, header, cells)
        except UnicodeDecodeError as error:
            place = f", after line {reader.line_num}" if reader else ""
            raise _encoding_failure(path, place) from error
        except csv.Error as error:
            line = reader.line_num if reader else 1
            raise UsageFailure(
                f"{path}, line {line}, is not CSV: {error}",
                'put text with quotes or line breaks between ", and write " in it as ""',
            ) from error


def _delimiter(line: str, keys: frozenset[str]) -> str:
    """Return what separates the cells of a header: that which gives the most known columns."""

    def known(delimiter: str) -> int:
        names = next(csv.reader(io.StringIO(line), delimiter=delimiter), [])
        return len(keys & {name.strip().lower() for name in names})

    return max(_DELIMITERS, key=known)


def _header(path: Path, names: Sequence[str]) -> list[str]:
    header = [name.strip().lower() for name in names]
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise UsageFailure(f"{path} has two columns with the name {twice!r}", "rename one of them")
    return header


def _csv_row(number: int, header: Sequence[str], cells: Sequence[str]) -> SourceRow:
    if len(cells) != len(header):
        fault = f"the row has {len(cells)} cells, and the header has {len(header)}"
        return SourceRow(number, None, fault)
    named = zip(header, cells, strict=True)
    # A table has no other way to leave a value out.
    return SourceRow(number, {name: cell for name, cell in named if cell.strip()})


# --- Parquet ------------------------------------------------------------------------------------


def _open_parquet(path: Path, keys: frozenset[str]) -> RowFile:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise UsageFailure(
            f"{path} is a Parquet file, and pyarrow is not installed here, which reads it",
            "install flashrun with the extra parquet: pip install 'flashrun[parquet]'",
        ) from error
    try:
        file = parquet.ParquetFile(path)
        columns = list(file.schema_arrow.names)
    except (OSError, pyarrow.ArrowException) as error:
        raise _parquet_failure(path, error) from error
    read = [name for name in columns if name.strip().lower() in keys]
    _header(path, read)
    if not read:
        raise UsageFailure(
            f"{path} has no column that can be learned; it has {', '.join(columns) or 'none'}",
            "name the columns prompt and completion, or messages",
        )

    def rows() -> Iterator[SourceRow]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=_BATCH, columns=read):
                for record in batch.to_pylist():
                    number += 1
                    yield _parquet_row(number, record)
        except (OSError, pyarrow.ArrowException) as error:
            raise _parquet_failure(path, error) from error
        finally:
            file.close()

    return RowFile("Parquet", rows(), tuple(name for name in columns if name not in read))


def _parquet_failure(path: Path, error: Exception) -> UsageFailure:
    return UsageFailure(f"{path} cannot be read as Parquet: {error}", "write it again")


def _parquet_row(number: int, record: dict[str, Any]) -> SourceRow:
    try:
        return SourceRow(
            number, {name.strip().lower(): _plain(value) for name, value in record.items()}
        )
    except UnicodeDecodeError:
        return SourceRow(number, None, "the row has bytes that are not UTF-8")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a field that is null counts as one that is left out.

    The objects in a column have the same fields: null is how a row does without one.
    """
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
