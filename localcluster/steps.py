"""Progress on the terminal: one line per step with its time, and a log file for the rest.

On a terminal, a step shows a spinner, or a bar when its length is known, and leaves one line.
Elsewhere (a pipe, CI) the line is written piece by piece: the title, every 10 %, the time. The
output of commands goes to the log, whose path is printed once.
"""

import contextlib
import errno
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from localcluster import folders

KEPT_LOGS = 10


class FatalError(Exception):
    """A fatal error with one sentence for the user: what happened and what to do."""


def disk_full(path: Path | None = None) -> FatalError:
    """Return the error for a full disk; `path` is the file or folder on it, if known."""
    where = f"the disk of {path}" if path else "the disk"
    return FatalError(
        f"{where} is full; free some space there, or set XDG_CACHE_HOME and XDG_STATE_HOME to "
        "folders on another disk, and run the same command again"
    )


@dataclass
class Step:
    """A running step; `detail` is added to its line at the end."""

    title: str
    total: float | None = None
    detail: str = ""
    done: float = 0.0
    on_change: Callable[["Step"], None] = field(default=lambda _: None, repr=False)

    def advance(self, amount: float = 1.0) -> None:
        """Move the bar by `amount`, at most to its end."""
        self.reach(self.done + amount)

    def reach(self, done: float) -> None:
        """Set the bar to `done` of `total`."""
        self.done = min(done, self.total) if self.total else done
        self.on_change(self)


class StepRunner:
    """Runs steps and commands; prints one line per step and writes everything to a log."""

    def __init__(self, log: Path, *, quiet: bool = False) -> None:
        self.log = log
        self.quiet = quiet
        log.parent.mkdir(parents=True, exist_ok=True)
        self._file = log.open("ab", buffering=0)
        self._console = Console(highlight=False)
        self._live = self._console.is_terminal and not os.environ.get("CI")

    @classmethod
    def named(cls, command: str) -> "StepRunner":
        """Return a runner with a new log file for `command`; the oldest logs are deleted."""
        folder = folders.logs()
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.log"))[: -(KEPT_LOGS - 1)]:
            old.unlink(missing_ok=True)
        moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        return cls(folder / f"{moment}-{command}.log")

    @classmethod
    def silent(cls, folder: Path) -> "StepRunner":
        """Return a runner for tests: nothing on the terminal, everything in a file in `folder`."""
        return cls(folder / "steps.log", quiet=True)

    def close(self) -> None:
        """Close the log file."""
        self._file.close()

    def say(self, text: str = "") -> None:
        """Print one line, and write it to the log."""
        self.note(text)
        if not self.quiet:
            self._console.print(escape(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Write one line to the log; a full disk must not hide another error."""
        with contextlib.suppress(OSError):
            self._file.write(f"{text}\n".encode(errors="replace"))

    @contextmanager
    def step(self, title: str, total: float | None = None) -> Iterator[Step]:
        """Print one line for the block, with its result and time."""
        self.note(f"== {title}")
        began = time.monotonic()
        step = Step(title, total)
        result = "failed"
        try:
            with self._progress(step):
                yield step
            result = "ok"
        finally:
            self._finish(step, result, time.monotonic() - began)

    def run(
        self,
        argv: Sequence[object],
        *,
        what: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        """Run a command to its end, log its output and return it.

        `what` names the command in errors; `env` is added to our environment; `on_line` is called
        with every line.

        Raises:
            FatalError: the command fails; with the last line of its output.
        """
        words = [str(word) for word in argv]
        self.note("$ " + " ".join(words))
        lines: deque[str] = deque(maxlen=2000)
        with _child(words, env, cwd) as child:
            assert child.stdin
            assert child.stdout
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(stdin)
                child.stdin.close()
            for line in child.stdout:
                lines.append(line)
                self.note(line.rstrip("\n"))
                if on_line:
                    on_line(line)
            status = child.wait()
        output = "".join(lines)
        if status:
            raise self._failure(what or words[0], status, output)
        return output

    def _failure(self, what: str, status: int, output: str) -> FatalError:
        if "no space left on device" in output.lower():
            return disk_full()
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        return FatalError(
            f"{what} failed with status {status}: {last.strip()} (full log: {self.log})"
        )

    @contextmanager
    def _progress(self, step: Step) -> Iterator[None]:
        if self.quiet:
            yield
        elif self._live:
            with _bar(step, self._console):
                yield
        else:
            self._write(step.title + " …")
            step.on_change = self._tenths()
            yield

    def _tenths(self) -> Callable[[Step], None]:
        """Return a callback that writes 10%, 20% and so on, each once."""
        written = 0

        def change(step: Step) -> None:
            nonlocal written
            tenth = int(10 * step.done / step.total) if step.total else 0
            if written < tenth < 10:
                written = tenth
                self._write(f" {tenth * 10}%")

        return change

    def _finish(self, step: Step, result: str, seconds: float) -> None:
        detail = f": {step.detail}" if step.detail else ""
        self.note(f"== {step.title}{detail} {result} after {seconds:.1f} s")
        if self.quiet:
            return
        if self._live:
            mark = "[green]✓[/]" if result == "ok" else "[red]✗[/]"
            line = f"{mark} {seconds:7.1f} s  {escape(step.title + detail)}"
            self._console.print(line, soft_wrap=True)
        else:
            self._write(f" {result} {seconds:.1f} s{detail}\n")

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


@contextmanager
def _bar(step: Step, console: Console) -> Iterator[None]:
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        *([BarColumn()] if step.total else []),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(step.title), total=step.total)
        step.on_change = lambda step: progress.update(task, completed=step.done)
        yield


@contextmanager
def _child(
    words: list[str], env: Mapping[str, str] | None, cwd: Path | None
) -> Iterator[subprocess.Popen[str]]:
    """Yield a child process with both outputs in one pipe; end it when we are interrupted."""
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            text=True,
            errors="replace",
        )
    except FileNotFoundError:
        raise FatalError(
            f"the program {words[0]} is missing; install it and run this command again"
        ) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full() from None
        raise
    with child:
        try:
            yield child
        except BaseException:
            child.terminate()
            raise
