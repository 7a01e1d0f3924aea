"""Following a run: its log as it is written, a line that says where it is, until it has ended.

A run that has ended is left only when its containers' logs have been read to their ends. What came
and went unseen, or was cut off with its pod, is read from storage.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import typer

from flashrun.api import names
from flashrun.api.pod import CONTAINERS, TRAINER_CONTAINER, container_statuses
from flashrun.api.resource import TERMINAL, FlashRun, Phase, ProgressStatus
from flashrun.cli.cluster.connection import Session, parsed
from flashrun.cli.cluster.pod_log import PodLog, after
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.failure import ExitCode, Failure

if TYPE_CHECKING:
    from rich.live import Live

POLL_SECONDS: Final = 1.0
LAST_LINES_SECONDS: Final = 20.0
"""How long the streams of a run that has ended may take for their last lines."""
STEPS_SECONDS: Final = 5.0
"""Shortest time between two lines about steps, where lines stay."""
LONGEST_LINE: Final = 64 * 1024
"""Longest log line that is shown, in characters."""


class View(Protocol):
    """Where a followed run is shown."""

    def line(self, text: str) -> None:
        """Show one line of the log."""

    def status(self, run: FlashRun) -> None:
        """Show where the run is."""

    def notice(self, text: str) -> None:
        """Show something about following itself."""


class PlainView:
    """For pipes: the log on standard output, changes of the state on standard error."""

    def __init__(self) -> None:
        self._shown: tuple[str, ...] = ()
        self._step = 0
        self._stepped = 0.0

    def line(self, text: str) -> None:
        """Write the line."""
        terminal.write(text)

    def status(self, run: FlashRun) -> None:
        """Write a line when the state has changed, and for new steps now and then."""
        status, progress = run.status, run.status.progress
        activity = progress.activity if progress else ""
        shown = (status.phase, activity, status.pending.message if status.pending else "")
        if status.phase not in TERMINAL and (shown != self._shown or self._next_step(progress)):
            self._shown = shown
            terminal.say(f"{run.name}: {formatting.progress_line(status)}")

    def _next_step(self, progress: ProgressStatus | None) -> bool:
        now = time.monotonic()
        if not progress or progress.step == self._step or now < self._stepped + STEPS_SECONDS:
            return False
        self._step, self._stepped = progress.step, now
        return True

    def notice(self, text: str) -> None:
        """Write the notice."""
        terminal.say(text)


class LiveView:
    """For terminals: the log scrolls above one line that stays."""

    def __init__(self, live: "Live") -> None:
        self._live = live

    def line(self, text: str) -> None:
        """Print the line above the live one."""
        from rich.text import Text

        self._live.console.print(Text.from_ansi(text))

    def status(self, run: FlashRun) -> None:
        """Renew the live line."""
        from rich.spinner import Spinner
        from rich.text import Text

        text = Text(f"{run.name} · {formatting.progress_line(run.status)}", style="cyan")
        self._live.update(Spinner("dots", text))

    def notice(self, text: str) -> None:
        """Print the notice above the live line."""
        from rich.text import Text

        self._live.console.print(Text(text, style="dim"))


@contextlib.contextmanager
def view() -> Iterator[View]:
    """Yield the view that fits standard output."""
    if not terminal.is_terminal():
        yield PlainView()
        return
    from rich.live import Live

    with Live(console=terminal.console(), transient=True, refresh_per_second=8) as live:
        yield LiveView(live)


@dataclass
class LogStreams:
    """The logs of one run's pods, merged as their lines come."""

    session: Session
    run: FlashRun
    shown: View
    attempt: int | None = None
    """The only attempt to show; None for all."""
    logs: dict[tuple[str, str], PodLog] = field(default_factory=dict)
    tasks: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def look(self, run: FlashRun) -> None:
        """Begin to read every container that has started and is not read yet."""
        self.run = run
        for pod in await pods_of(self.session, run):
            name = pod["metadata"]["name"]
            if self.attempt is not None and name != pod_of(run, self.attempt):
                continue
            for container in started_containers(pod):
                if (name, container) not in self.logs:
                    log = PodLog(self.session.cluster, run.namespace, name, container)
                    self.logs[name, container] = log
                    self.tasks.append(asyncio.create_task(self._show(log, prefix_of(pod))))

    async def finish(self) -> None:
        """Show the last lines: from the pods while they are there, else from storage."""
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=LAST_LINES_SECONDS)
            await _cancelled(late)
        for attempt in self.run.status.attempts:
            log = self.logs.get((attempt.pod, TRAINER_CONTAINER))
            wanted = self.attempt in (None, attempt.number)
            if wanted and attempt.pod and not (log and log.whole):
                await self._show_stored(attempt.number, tuple(log.tail) if log else ())

    async def stop(self) -> None:
        """End all reading where it is."""
        await _cancelled(self.tasks)

    async def _show(self, log: PodLog, prefix: str) -> None:
        from flashrun.cluster_errors import ClusterError

        try:
            async for line in log.lines():
                self.shown.line(prefixed(log.container, line, prefix))
        except ClusterError as error:
            self.shown.notice(f"the log of {log.pod} cannot be read: {error}")

    async def _show_stored(self, attempt: int, shown: Sequence[str]) -> None:
        """Show from storage what an attempt wrote after the lines ``shown``."""
        from flashrun.store_errors import StoreError

        try:
            lines = await stored_log(self.session, self.run, attempt)
        except (Failure, StoreError) as error:
            self.shown.notice(f"the log of attempt {attempt} is not complete: {error}")
            return
        for line in after(lines, shown):
            self.shown.line(prefixed(TRAINER_CONTAINER, line))


async def _cancelled(tasks: Iterable["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def pod_of(run: FlashRun, attempt: int) -> str:
    """Return the pod of an attempt; empty while there is none."""
    return next((item.pod for item in run.status.attempts if item.number == attempt), "")


def prefix_of(pod: dict[str, Any]) -> str:
    """Return what tells the lines of a pod apart: empty for the one that leads."""
    index = pod["metadata"].get("labels", {}).get(names.POD_INDEX_LABEL, "0")
    return "" if index == "0" else f"node {index}"


def prefixed(container: str, line: str, prefix: str = "") -> str:
    """Return a log line as it is shown; those of init containers name their container."""
    shown = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}… (cut)"
    names_of = " ".join(filter(None, (prefix, "" if container == TRAINER_CONTAINER else container)))
    return f"[{names_of}] {shown}" if names_of else shown


async def pods_of(session: Session, run: FlashRun) -> list[dict[str, Any]]:
    """Return the run's pods, oldest first."""
    labels = {names.RUN_LABEL: run.name, names.RUN_UID_LABEL: run.uid}
    pods = await session.cluster.list("Pod", run.namespace, labels)
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


def started_containers(pod: dict[str, Any]) -> list[str]:
    """Return the containers of a pod that have run or are running, in the order they run."""
    started = {
        item["name"]
        for item in container_statuses(pod)
        if item.get("state", {}).keys() & {"running", "terminated"} and not _never_started(item)
    }
    return [name for name in CONTAINERS if name in started]


def _never_started(status: dict[str, Any]) -> bool:
    """Say whether a container ended before its image was there; it has no log."""
    terminated = status.get("state", {}).get("terminated")
    return terminated is not None and not terminated.get("containerID")


async def follow(
    session: Session, name: str, shown: View, *, log: bool = True, attempt: int | None = None
) -> FlashRun:
    """Show a run until it, or the one ``attempt`` of it, has ended; return it as it is then."""
    run = await session.run(name)
    streams = LogStreams(session, run, shown, attempt)
    try:
        async for state in _states(session, name, run, shown):
            run = state
            shown.status(run)
            if log:
                await _looked(streams, run)
            if attempt is not None and _is_over(run, attempt):
                break
        if log:
            await streams.finish()
    finally:
        await streams.stop()
    return run


async def watch(name: str, following: Coroutine[Any, Any, FlashRun]) -> FlashRun:
    """Follow a run; Ctrl-C ends that, and says how to come back."""
    try:
        return await following
    except asyncio.CancelledError:
        terminal.say(
            f"detached from {name}. Come back: flash log {name} -f; stop it: flash cancel {name}"
        )
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _is_over(run: FlashRun, attempt: int) -> bool:
    return any(item.number == attempt and item.end for item in run.status.attempts)


async def _states(
    session: Session, name: str, first: FlashRun, shown: View
) -> AsyncIterator[FlashRun]:
    """Yield the run again and again, the last time when it has ended."""
    run, lost = first, False
    while True:
        yield run
        if run.status.phase in TERMINAL:
            return
        await asyncio.sleep(POLL_SECONDS)
        try:
            run, lost = parsed(await session.manifest(name)), False
        except Exception as error:
            if not getattr(error, "temporary", False):
                raise
            if not lost:
                shown.notice(f"{error}; trying again, the run is not affected")
            lost = True


async def _looked(streams: LogStreams, run: FlashRun) -> None:
    """Look for new pods; trouble shows in the run's own state, which is asked for as well."""
    try:
        await streams.look(run)
    except Exception as error:
        if not getattr(error, "temporary", False):
            raise


async def stored_log(session: Session, run: FlashRun, attempt: int) -> list[str]:
    """Return the lines of an attempt's log in storage."""
    key = names.log_key(run.storage_prefix, attempt)
    data = await session.stored(lambda store: store.get_bytes(key))
    return data.decode(errors="replace").splitlines()


def conclude(run: FlashRun) -> None:
    """Say how a followed run ended; ends the command with 1 when it did not succeed."""
    terminal.say(*formatting.outcome(run))
    if run.status.phase is not Phase.SUCCEEDED:
        raise typer.Exit(ExitCode.RUN_FAILED)
