"""Servers that outlive the command that started them.

A server is known again by its pid together with the moment it started and the boot it started
in: a pid that the kernel has since given to somebody else never matches, so it is never killed.
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
STATE_FIELD, THREADS_FIELD, START_FIELD = (
    0,
    17,
    19,
)  # in /proc/<pid>/stat, counted after the command's name


@dataclass(frozen=True)
class Daemons:
    """The servers of one folder: a pid file and a log each."""

    folder: Path
    ephemeral: bool = False
    """Whether they die with the thread that started them; for tests that may be killed."""

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        reads: Sequence[Path] = (),
    ) -> None:
        """Start a server unless it runs as asked; other arguments or settings restart it.

        `reads` are the files it takes its settings from.
        """
        words = [str(word) for word in argv]
        told = {"argv": words, "settings": [file.read_text() for file in reads]}
        if self.running(name):
            if self._record(name).items() >= told.items():
                return
            self.stop(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        tied = ["setpriv", "--pdeathsig", "KILL", "--"] if self.ephemeral else []
        pid = _spawn([*tied, *words], self.log(name), {**os.environ, **(env or {})})
        record = {"pid": pid, "start": _start(pid), "boot": _boot(), **told}
        self._file(name).write_text(json.dumps(record))

    def pid(self, name: str) -> int | None:
        """The pid of a server that runs, else None."""
        record = self._record(name)
        pid = int(record.get("pid", 0))
        alive = pid and record["boot"] == _boot() and record["start"] == _start(pid)
        return pid if alive else None

    def running(self, name: str) -> bool:
        """Whether the server that was started under this name still runs."""
        return self.pid(name) is not None

    def stop(self, name: str, grace: float = 10.0) -> None:
        """End a server: politely, and after `grace` seconds for sure. A dead one is fine."""
        pid = self.pid(name)
        if pid:
            os.kill(pid, signal.SIGTERM)
            if not wait_until(lambda: not self.running(name), grace):
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda: not self.running(name), KILLED_WITHIN)
        self._file(name).unlink(missing_ok=True)

    def wait(self, name: str, ready: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until a server is ready; Stop, with its last words, when it ends or takes longer."""
        if wait_until(lambda: ready() or not self.running(name), seconds) and self.running(name):
            return
        end = "does not answer" if self.running(name) else "ended"
        raise FatalError(f"{name} {end}: {self.last_log_line(name)} (all of it: {self.log(name)})")

    def last_log_line(self, name: str) -> str:
        """The last line of a server's log."""
        try:
            lines = self.log(name).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "it left no log"
        return next((line.strip()[-300:] for line in reversed(lines) if line.strip()), "no output")

    def names(self) -> list[str]:
        """The servers that have a pid file, running or not."""
        return sorted(path.stem for path in self.folder.glob("*.pid"))

    def log(self, name: str) -> Path:
        """The log file of a server."""
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
    """Make a file say `text`; one that says so already is not touched, for servers watch theirs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or file.read_text() != text:
        file.touch(mode)
        file.write_text(text)
    return file


def wait_until(ready: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
    """Ask again and again until the answer is yes; False when `seconds` pass first."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


def _spawn(words: list[str], log: Path, env: Mapping[str, str]) -> int:
    """Start a program in a session of its own, reading nothing and writing to `log`."""
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
                # What our caller left open, a lock for one, a server would hold for ever.
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in _descriptors() if fd > 2),
            ],
            setsid=True,
        )
    except FileNotFoundError:
        raise FatalError(f"the program {words[0]} is missing; install it and run again") from None


def _descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]


def _start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    # Killed, the first thread is a zombie while others still hold the server's sockets.
    if fields[STATE_FIELD] == "Z" and int(fields[THREADS_FIELD]) <= 1:
        _reap(pid)
        return None
    return int(fields[START_FIELD])


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # started by an earlier command, not our child
        os.waitpid(pid, os.WNOHANG)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
