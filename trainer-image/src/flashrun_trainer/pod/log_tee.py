"""The attempt's log: everything the process prints goes to the pod's log and to a file, redacted.

Both streams are redirected at the file descriptors, below Python, so that the output of C libraries
and of child processes is included.
"""

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from flashrun_trainer.pod.redaction import Redactor

LIMIT: Final = 8 * 1024 * 1024
"""Most bytes of the log file; when it grows longer, only its newest half is kept."""
_LONGEST_LINE: Final = 64 * 1024
_LINE_BREAKS: Final = (b" ", b",", b'"')
"""Where a longer line may be broken: not inside a word, which may be a secret."""
_SYNC_TIMEOUT_SECONDS: Final = 5.0
_SYNC_MARK: Final = b"\0end of what was written\0"
"""A line that is not part of the log; when it is read, all output before it has been copied."""


class Tee:
    """Copies stdout and stderr to ``path`` until it is closed."""

    def __init__(self, path: Path, redact: Redactor) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._redact = redact
        self._file = path.open("wb", buffering=0)
        self._streams = {number: os.dup(number) for number in (1, 2)}
        self._synced = threading.Event()
        self._reader, writer = os.pipe()
        for number in self._streams:
            os.dup2(writer, number)
        os.close(writer)
        self._thread = threading.Thread(target=self._copy, name="log", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Use as a context manager; the streams are restored at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def sync(self) -> None:
        """Wait until everything that was written so far is in the file."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._synced.clear()
        os.write(1, _SYNC_MARK + b"\n")
        self._synced.wait(_SYNC_TIMEOUT_SECONDS)

    def close(self) -> None:
        """Restore the streams, once everything that was written has been copied."""
        self.sync()
        for number, stream in self._streams.items():
            os.dup2(stream, number)
        # A child process may hold the pipe open: do not wait for what it still prints.
        self._thread.join(_SYNC_TIMEOUT_SECONDS)
        self._file.close()

    def _copy(self) -> None:
        rest, broken = b"", False
        while chunk := os.read(self._reader, _LONGEST_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._copy_line(line, is_fragment=broken)
                broken = False
            if len(rest) > _LONGEST_LINE:
                end = max(map(rest.rfind, _LINE_BREAKS)) + 1 or len(rest)
                self._write(rest[:end], is_fragment=True)
                rest, broken = rest[end:], True

    def _copy_line(self, line: bytes, *, is_fragment: bool) -> None:
        text = line.removesuffix(_SYNC_MARK)
        if text or text == line:
            self._write(text, is_fragment=is_fragment)
        if text != line:
            self._synced.set()

    def _write(self, line: bytes, *, is_fragment: bool) -> None:
        """Write to both; never block the printing process when one of them is full or closed."""
        text = line.decode("utf-8", "replace")
        clean = self._redact(text, is_fragment=is_fragment).encode() + b"\n"
        with suppress(OSError):
            os.write(self._streams[1], clean)
        with suppress(OSError):
            self._append(clean)

    def _append(self, text: bytes) -> None:
        self._file.write(text)
        if self._file.tell() > LIMIT:
            newest = self.path.read_bytes()[-LIMIT // 2 :]
            self._file.seek(0)
            self._file.truncate()
            self._file.write(b"(the beginning of this log was left out)\n" + newest)
