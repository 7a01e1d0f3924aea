"""The attempt's log: what the process prints goes to the pod's own log and to a file, redacted.

The two streams are caught below Python, so that libraries in C and child processes are in it, too.
"""

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from flashrun_trainer.pod.trainer_errors import Redactor

LIMIT: Final = 8 * 1024 * 1024
"""Longest log that is kept in storage, in bytes; the newest half stays when it grows longer."""
_LONGEST_LINE: Final = 64 * 1024
_BREAKS: Final = (b" ", b",", b'"')
"""Where a longer line is broken: not within a word, which may be a secret."""
_PATIENCE_SECONDS: Final = 5.0
_MARK: Final = b"\0end of what was written\0"
"""A line that only says how far the copy has come."""


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
        """Use as a context; the streams are given back at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def sync(self) -> None:
        """Wait until everything that was written so far is in the file."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._synced.clear()
        os.write(1, _MARK + b"\n")
        self._synced.wait(_PATIENCE_SECONDS)

    def close(self) -> None:
        """Give the streams back, once everything that was written has been copied."""
        self.sync()
        for number, stream in self._streams.items():
            os.dup2(stream, number)
        # A child process may hold the pipe open: what it still says is not waited for.
        self._thread.join(_PATIENCE_SECONDS)
        self._file.close()

    def _copy(self) -> None:
        rest = b""
        while chunk := os.read(self._reader, _LONGEST_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
            if len(rest) > _LONGEST_LINE:
                end = max(map(rest.rfind, _BREAKS)) + 1 or len(rest)
                self._write(rest[:end] + b"\n")
                rest = rest[end:]

    def _take(self, line: bytes) -> None:
        text = line.removesuffix(_MARK)
        if text or text == line:
            self._write(text + b"\n")
        if text != line:
            self._synced.set()

    def _write(self, text: bytes) -> None:
        """Write to both; who prints must not have to wait because one of them is full or gone."""
        clean = self._redact(text.decode("utf-8", "replace")).encode()
        with suppress(OSError):
            os.write(self._streams[1], clean)
        with suppress(OSError):
            self._keep(clean)

    def _keep(self, text: bytes) -> None:
        self._file.write(text)
        if self._file.tell() > LIMIT:
            kept = self.path.read_bytes()[-LIMIT // 2 :]
            self._file.seek(0)
            self._file.truncate()
            self._file.write(b"(the beginning of this log was left out)\n" + kept)
