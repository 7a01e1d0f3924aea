"""Reads the memory of a process while a benchmark runs."""

import threading
import time
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = 4096


class Meter:
    """Reads the resident memory of a process again and again, and remembers the peak, in MiB."""

    def __init__(self, pid: int, every: float = 0.5, *, files: bool = True) -> None:
        """Read it ``every`` so many seconds; ``files`` counts pages of programs and libraries."""
        self._file = Path(f"/proc/{pid}/statm")
        self._every, self._files = every, files
        self.peak = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> float:
        """Return the memory in MiB."""
        _, resident, shared, *_ = self._file.read_text().split()
        pages = int(resident) - (0 if self._files else int(shared))
        return pages * _PAGE_BYTES / 2**20

    def _watch(self) -> None:
        while True:
            try:
                self.peak = max(self.peak, self.now())
            except OSError:
                return
            time.sleep(self._every)
