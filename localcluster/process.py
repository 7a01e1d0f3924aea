"""Servers that outlive the command that started them.

A server is recognized by its pid, its start time and the id of the boot. A pid that the kernel has
given to another process since then does not match, so another process is never killed.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.steps import FatalError

KILLED_WITHIN = 10.0  # seconds; only a process stuck in the kernel takes longer
# In /proc/<pid>/stat, counted after the name of the command.
STATE_FIELD, THREADS_FIELD, START_FIELD = 0, 17, 19


@dataclass(frozen=True)
class Daemons:
    """The servers of one folder; each has a pid file and a log."""

    folder: Path
    ephemeral: bool = False
    """Whether servers end with the thread that started them; for tests that may be killed."""

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        reads: Sequence[Path] = (),
    ) -> None:
        """Start a server, or restart it when its arguments or settings changed.

        `reads` are the files with its settings.
        """
        words = [str(word) for word in argv]
        wanted = {"argv": words, "settings": [file.read_text() for file in reads]}
        if self.running(name):
            if self._record(name).items() >= wanted.items():
                return
            self.stop(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        ends_with_us = ["setpriv", "--pdeathsig", "KILL", "--"] if self.ephemeral else []
        pid = _spawn([*ends_with_us, *words], self.log(name), {**os.environ, **(env or {})})
        record = {"pid": pid, "start": _start(pid), "boot": _boot(), **wanted}
        self._file(name).write_text(json.dumps(record))

    def pid(self, name: str) -> int | None:
        """Return the pid of a server that runs, or None."""
        record = self._record(name)
        pid = int(record.get("pid", 0))
        alive = pid and record["boot"] == _boot() and record["start"] == _start(pid)
        return pid if alive else None

    def running(self, name: str) -> bool:
        """Return whether the server that was started under this name still runs."""
        return self.pid(name) is not None

    def stop(self, name: str, grace: float = 10.0) -> None:
        """End a server with SIGTERM, and with SIGKILL after `grace` seconds."""
        pid = self.pid(name)
        if pid:
            os.kill(pid, signal.SIGTERM)
            if not wait_until(lambda: not self.running(name), grace):
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda: not self.running(name), KILLED_WITHIN)
        self._file(name).unlink(missing_ok=True)

    def wait(self, name: str, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until a server is ready.

        Raises:
            FatalError: the server ends or is not ready in time; with its last log line.
        """
        if wait_until(lambda: ready() or not self.running(name), seconds) and self.running(name):
            return
        end = "does not answer" if self.running(name) else "ended"
        raise FatalError(f"{name} {end}: {self.last_log_line(name)} (full log: {self.log(name)})")

    def last_log_line(self, name: str) -> str:
        """Return the last line in the log of a server."""
        try:
            lines = self.log(name).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "there is no log"
        return next((line.strip()[-300:] for line in reversed(lines) if line.strip()), "no output")

    def names(self) -> list[str]:
        """Return the servers that have a pid file, running or not."""
        return sorted(path.stem for path in self.folder.glob("*.pid"))

    def log(self, name: str) -> Path:
        """Return the log file of a server."""
        return self.folder / f"{name}.log"

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.pid"

    def _record(self, name: str) -> dict[str, Any]:
        try:
            loaded: dict[str, Any] = json.loads(self._file(name).read_text())
        except (FileNotFoundError, ValueError):  # a crash can leave half a file
            return {}
        return loaded


def write_if_changed(file: Path, text: str, mode: int = 0o644) -> Path:
    """Write `text` to a file unless it is its content; servers watch their files."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or file.read_text() != text:
        file.touch(mode)
        file.write_text(text)
    return file


def wait_until(ready: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
    """Call `ready` repeatedly until it returns True; return False after `seconds`."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


def _spawn(words: list[str], log: Path, env: Mapping[str, str]) -> int:
    """Start a program in its own session, without input and with its output in `log`."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        return os.posix_spawnp(
            words[0],
            words,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                # The server must not hold what our caller has open, for example a lock.
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in _descriptors() if fd > 2),
            ],
            setsid=True,
        )
    except FileNotFoundError:
        raise FatalError(
            f"the program {words[0]} is missing; install it and run this command again"
        ) from None


def _descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]


def _start(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    # After SIGKILL, the first thread is a zombie while others may still hold sockets.
    if fields[STATE_FIELD] == "Z" and int(fields[THREADS_FIELD]) <= 1:
        _reap(pid)
        return None
    return int(fields[START_FIELD])


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # started by an earlier command, not our child
        os.waitpid(pid, os.WNOHANG)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
