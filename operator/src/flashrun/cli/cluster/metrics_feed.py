"""The metrics of a followed run, read from storage as they grow, beside the polling of its status.

Storage is read only after the status has changed, and not often. A person without access to storage
sees what the status says.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from flashrun.api import names
from flashrun.api.metrics_parts import StoredPart, last_steps
from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import Failure
from flashrun.cli.output.run_view import RunView
from flashrun.cluster_errors import ClusterError
from flashrun.daemon_thread import in_daemon_thread
from flashrun.store_errors import KeyNotFound, StoreError
from flashrun.store_metrics import counted_rows, list_parts, read_parts

if TYPE_CHECKING:
    from flashrun.store import Store

READ_SECONDS: Final = 10.0
"""Shortest time between two readings."""
_LONGEST_PAUSE: Final = 300.0
"""Longest time between two readings that fail."""
LAST_SECONDS: Final = 5.0
"""How long the values after the last steps are waited for."""
_MOST_BYTES: Final = 64 * 1024 * 1024
"""Most bytes of one reading; a longer history is left to ``flash metrics``."""


class NewRows(NamedTuple):
    """What one reading of the history brought."""

    rows: Sequence[MetricsRow]
    from_start: bool
    """Whether it is the whole history; else what was added to it."""


class HistoryReader:
    """Reads a growing history, each time only what was added.

    Parts only grow. A new attempt says which rows before its own still count, so then the whole
    history is read.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._known: dict[str, int] = {}
        """Bytes that were read of each part, up to the end of a line."""
        self._steps: Mapping[int, int | None] = {}
        """The last step that counted of each attempt."""
        self._single_file = _SingleFile(names.metrics_key(prefix))

    def read_new(self, store: "Store") -> NewRows:
        """Return the rows that were added; raises ``StoreError``."""
        parts = list_parts(store, self._prefix)
        if all(part.attempt == 0 for part in parts):
            return self._single_file.read_new(store)
        steps = last_steps(parts)
        from_start = steps != self._steps
        known = {} if from_start else self._known
        contents = read_parts(store, parts, known, _MOST_BYTES)
        self._steps = steps
        self._known = {
            part.key: known.get(part.key, 0) + len(content)
            for part, content in zip(parts, contents, strict=True)
        }
        return NewRows([row for _, row in counted_rows(parts, contents)], from_start)


class _SingleFile:
    """Reads the one file of a run that an earlier version of the trainer has begun.

    The next attempt of a run writes it again without the steps that it repeats. So each reading
    begins at the last line that was read before, and the whole is read if another line is there.
    """

    def __init__(self, key: str) -> None:
        self._part = StoredPart(key, 0, 0, 0, 0)
        self._end = 0
        """Bytes that were read, up to the end of a line."""
        self._last_line = b""

    def read_new(self, store: "Store") -> NewRows:
        """Return the rows that were added; raises ``StoreError``."""
        begin = self._end - len(self._last_line)
        data = self._read(store, begin)
        from_start = not self._last_line or not data.startswith(self._last_line)
        if from_start and begin:
            begin, data = 0, self._read(store, 0)
        known = 0 if from_start else len(self._last_line)
        lines = data[: data.rfind(b"\n") + 1]  # the last line may be half of one
        if lines:
            self._last_line = lines[lines.rfind(b"\n", 0, -1) + 1 :]
        elif from_start:
            self._last_line = b""
        self._end = begin + len(lines)
        rows = [row for _, row in counted_rows([self._part], [lines[known:]])]
        return NewRows(rows, from_start)

    def _read(self, store: "Store", begin: int) -> bytes:
        try:
            return store.get_bytes(self._part.key, offset=begin, limit=_MOST_BYTES)
        except KeyNotFound:
            return b""


class MetricsFeed:
    """Shows a run's metrics in storage while the run is followed."""

    def __init__(
        self, session: ClusterSession, view: RunView, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._view = view
        self._clock = clock
        self._reader: HistoryReader | None = None
        self._reading: asyncio.Task[None] | None = None
        self._seen: object = None
        """What the status had at the last reading."""
        self._pause = READ_SECONDS
        self._next = -float("inf")

    def update(self, run: FlashRun) -> None:
        """Begin to read when the status of ``run`` has changed and the last reading is old."""
        news = _news(run)
        busy = self._reading is not None and not self._reading.done()
        if busy or news == self._seen or self._clock() < self._next:
            return
        self._seen = news
        self._reading = asyncio.create_task(self._read(run))

    async def finish(self, run: FlashRun) -> None:
        """Read what the last steps have written."""
        await self.wait()
        self._next = -float("inf")
        self.update(run)
        await self.wait()

    async def stop(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def wait(self) -> None:
        """Wait for the reading that has begun, but not for long."""
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=LAST_SECONDS)

    async def _read(self, run: FlashRun) -> None:
        if self._reader is None:
            self._reader = HistoryReader(run.storage_prefix)
        reader = self._reader
        try:
            store = await self._session.open_store()
            new = await in_daemon_thread(lambda: reader.read_new(store))
        except (Failure, ClusterError, StoreError, OSError):
            self._seen = None  # the same is to be read
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        else:
            self._pause = READ_SECONDS
            if new.rows or new.from_start:
                self._view.show_metrics(new.rows, from_start=new.from_start)
        self._next = self._clock() + self._pause


def _news(run: FlashRun) -> object:
    """Return what changes when the history may have grown."""
    status = run.status
    progress, evaluated = status.progress, status.evaluation
    return (
        progress.step if progress is not None else None,
        evaluated.last if evaluated is not None else None,
        len(status.attempts),
        status.phase,
    )
