"""What a person sees: one line a step with its time, and a log file for everything else.

On a terminal a step shows a spinner, or a bar when its length is known, and leaves one line.
Elsewhere (a pipe, CI) the line is written as it happens: the title, every tenth part done, the
time. Whatever a command prints goes into the log, whose path is printed once.
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
    """The end of the road, said in one sentence: what is wrong and what to do next."""


def disk_full(path: Path | None = None) -> FatalError:
    """The sentence for a full disk; `path` is where the write went, when that is known."""
    where = f"the disk that holds {path}" if path else "the disk"
    return FatalError(
        f"{where} is full; free some space there, or set XDG_CACHE_HOME and XDG_STATE_HOME to "
        "folders on another disk, and run the same command again"
    )


@dataclass
class Step:
    """A step under way; `detail` is added to its line at the end."""

    title: str
    total: float | None = None
    detail: str = ""
    done: float = 0.0
    on_change: Callable[["Step"], None] = field(default=lambda _: None, repr=False)

    def advance(self, amount: float = 1.0) -> None:
        """Move the bar; a bar never runs past its end."""
        self.reach(self.done + amount)

    def reach(self, done: float) -> None:
        """Set the bar to `done` of `total`."""
        self.done = min(done, self.total) if self.total else done
        self.on_change(self)


class StepRunner:
    """Runs steps and commands, tells a person the short story and the log the long one."""

    def __init__(self, log: Path, *, quiet: bool = False) -> None:
        self.log = log
        self.quiet = quiet
        log.parent.mkdir(parents=True, exist_ok=True)
        self._file = log.open("ab", buffering=0)
        self._console = Console(highlight=False)
        self._live = self._console.is_terminal and not os.environ.get("CI")

    @classmethod
    def named(cls, command: str) -> "StepRunner":
        """Steps that log to a new file of their own; the oldest files go."""
        folder = folders.logs()
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.log"))[: -(KEPT_LOGS - 1)]:
            old.unlink(missing_ok=True)
        moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        return cls(folder / f"{moment}-{command}.log")

    @classmethod
    def silent(cls, folder: Path) -> "StepRunner":
        """Steps for tests: nothing on the screen, all in a file under `folder`."""
        return cls(folder / "steps.log", quiet=True)

    def close(self) -> None:
        """Close the log file."""
        self._file.close()

    def say(self, text: str = "") -> None:
        """One line for a person, also in the log."""
        self.note(text)
        if not self.quiet:
            self._console.print(escape(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """One line for the log alone; a disk too full for it must not hide what else happens."""
        with contextlib.suppress(OSError):
            self._file.write(f"{text}\n".encode(errors="replace"))

    @contextmanager
    def step(self, title: str, total: float | None = None) -> Iterator[Step]:
        """One line on the screen, with the time its body took."""
        self.note(f"== {title}")
        began = time.monotonic()
        step = Step(title, total)
        verdict = "failed"
        try:
            with self._shown(step):
                yield step
            verdict = "ok"
        finally:
            self._finish(step, verdict, time.monotonic() - began)

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
        """Run a command to its end, its output into the log; returns the output.

        Raises Stop, with the last line the command said, when it fails. `env` is added to ours.
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
            f"{what} failed with status {status}: {last.strip()} (all of it: {self.log})"
        )

    @contextmanager
    def _shown(self, step: Step) -> Iterator[None]:
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
        """Writes 10%, 20%, … once each as a step with a known length goes on."""
        told = 0

        def change(step: Step) -> None:
            nonlocal told
            tenth = int(10 * step.done / step.total) if step.total else 0
            if told < tenth < 10:
                told = tenth
                self._write(f" {tenth * 10}%")

        return change

    def _finish(self, step: Step, verdict: str, seconds: float) -> None:
        detail = f": {step.detail}" if step.detail else ""
        self.note(f"== {step.title}{detail} {verdict} after {seconds:.1f} s")
        if self.quiet:
            return
        if self._live:
            mark = "[green]✓[/]" if verdict == "ok" else "[red]✗[/]"
            line = f"{mark} {seconds:7.1f} s  {escape(step.title + detail)}"
            self._console.print(line, soft_wrap=True)
        else:
            self._write(f" {verdict} {seconds:.1f} s{detail}\n")

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
    """A child whose two outputs are one pipe; ended with us when we are interrupted."""
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
        raise FatalError(f"the program {words[0]} is missing; install it and run again") from None
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
