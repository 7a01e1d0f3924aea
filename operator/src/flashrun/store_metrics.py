"""Reads the metrics of a run, which its attempts have stored in parts (``api.metrics_parts``)."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from flashrun.api import names
from flashrun.api.metrics_parts import StoredPart, last_steps, stored_parts
from flashrun.api.record_reader import RecordRefused, read_record
from flashrun.api.records import MetricsRow
from flashrun.daemon_pool import in_daemon_threads
from flashrun.store_errors import Corrupt

if TYPE_CHECKING:
    from flashrun.store import Store

LONGEST_HISTORY: Final = 512 * 1024 * 1024
"""Most bytes of a history that are read."""
_MOST_KEYS: Final = 20_000
_PARALLEL_READS: Final = 8


def list_parts(store: "Store", prefix: str) -> list[StoredPart]:
    """Return the parts of the run at ``prefix``, in the order of their rows."""
    entries = islice(store.list(names.metrics_prefix(prefix)), _MOST_KEYS)
    return stored_parts(prefix, ((entry.key, entry.size) for entry in entries))


def read_history(
    store: "Store", prefix: str, limit: int = LONGEST_HISTORY
) -> list[tuple[bytes, MetricsRow]]:
    """Return the lines of a run's history and their rows, in order; empty while there are none.

    A line that is not a row is left out.

    Raises:
        Corrupt: the history is longer than ``limit`` bytes.
    """
    parts = list_parts(store, prefix)
    contents = read_parts(store, parts, {}, limit)
    return list(counted_rows(parts, contents))


def read_parts(
    store: "Store", parts: Sequence[StoredPart], known: Mapping[str, int], limit: int
) -> list[bytes]:
    """Return the whole lines of each part behind the first bytes that are ``known`` of it.

    Raises:
        Corrupt: they are longer than ``limit`` bytes.
    """
    begins = [known.get(part.key, 0) for part in parts]
    if sum(part.size - begin for part, begin in zip(parts, begins, strict=True)) > limit:
        raise Corrupt(f"the metrics are longer than {limit} bytes")

    def read(index: int) -> bytes:
        part, begin = parts[index], begins[index]
        if part.size <= begin:
            return b""
        content = store.get_bytes(part.key, offset=begin, limit=limit)
        return content[: content.rfind(b"\n") + 1]  # the last line may be half of one

    return in_daemon_threads(read, range(len(parts)), _PARALLEL_READS)


def counted_rows(
    parts: Sequence[StoredPart], contents: Sequence[bytes]
) -> Iterator[tuple[bytes, MetricsRow]]:
    """Yield the lines that count in the contents of parts, with their rows.

    ``parts`` are all parts of the run: later ones decide which rows of earlier ones count.
    """
    steps = last_steps(parts)
    now = datetime.now(UTC)
    for part, content in zip(parts, contents, strict=True):
        last = steps[part.attempt]
        for line in content.splitlines():
            try:
                row = read_record(line, MetricsRow, now)
            except RecordRefused:
                continue
            if last is None or row.step <= last:
                yield line, row
