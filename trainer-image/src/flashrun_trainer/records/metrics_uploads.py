"""The metrics of a run on the pod's disk, and the parts of this attempt in storage.

The file on the disk has the rows of all attempts. Storage gets those of this attempt in parts: a
part that is full is never written again, so an upload is short however long the history is.
"""

import threading
import time
from pathlib import Path
from typing import Final

from flashrun.api import names
from flashrun.api.metrics_parts import part_bytes
from flashrun.api.records import MetricsRow
from flashrun.store_metrics import read_history
from flashrun_trainer.records.attempts import ClaimedAttempt

UPLOAD_SECONDS: Final = 15.0
"""Shortest time between two uploads that nobody has asked for."""


class MetricsUploads:
    """The metrics of one attempt, and of those that it continues."""

    def __init__(self, attempt: ClaimedAttempt, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        """Held during an upload, so that older content never replaces newer content."""
        self._attempt = attempt
        self._after = 0
        """The step after which this attempt continues."""
        self._number = 0
        """Number of the part that grows."""
        self._begin = 0
        """Where in the file this part begins."""
        self._sent: int | None = None
        """Up to where the file is in storage; None: this attempt has no part there."""
        self._read = 0
        self._uploaded_at = -float("inf")

    def append(self, row: MetricsRow) -> None:
        """Append a row."""
        with self.path.open("a") as file:
            file.write(row.model_dump_json() + "\n")

    def read_new_rows(self) -> list[MetricsRow]:
        """Return the rows since the last call, those of all attempts; on training's thread."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        return [MetricsRow.model_validate_json(line) for line in data.splitlines()]

    def continue_after(self, step: int) -> None:
        """Take the rows of earlier attempts up to ``step``; the others are trained again.

        Raises:
            StoreError: they cannot be read.
        """
        history = read_history(self._attempt.store, self._attempt.prefix)
        earlier = b"".join(line + b"\n" for line, row in history if row.step <= step)
        with self.lock:  # the thread must not upload a half-written file
            self._after, self._begin, self._read = step, len(earlier), 0
            if history:
                self.path.write_bytes(earlier)

    def is_due(self) -> bool:
        """Return whether there are new rows and the pause since the last upload is over."""
        if time.monotonic() - self._uploaded_at < UPLOAD_SECONDS or not self.path.exists():
            return False
        return self._sent is None or self.path.stat().st_size > self._sent

    def upload_at_once(self) -> None:
        """Skip the pause: the next pass uploads the rows."""
        self._uploaded_at = -float("inf")

    def upload(self) -> None:
        """Upload what is new of the part that grows, and the parts after it.

        The first upload of an attempt that continues may be empty: it says after which step.

        Raises:
            StoreError: an upload failed; the next call continues there.
        """
        with self.lock, self.path.open("rb") as file:
            is_full = True
            while is_full:
                most = part_bytes(self._number)
                file.seek(self._begin)
                content = file.read(most)
                is_full = len(content) == most and bool(file.read(1))
                content = content[: content.rfind(b"\n") + 1]
                end = self._begin + len(content)
                if self._sent != end:
                    self._put(content)
                    self._sent = end
                if is_full:
                    self._begin, self._number = end, self._number + 1
        self._uploaded_at = time.monotonic()

    def _put(self, content: bytes) -> None:
        attempt = self._attempt
        key = names.metrics_part_key(attempt.prefix, attempt.number, self._after, self._number)
        attempt.store.put_bytes(key, content, "text/plain; charset=utf-8")
