"""Following a run: its log as it is written, a line that says where it is, until it has ended.

A log stream of a pod ends when its container does, after the last line; a run that has ended is
left only when all its streams have. Containers that came and went unseen are read from storage.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import typer
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from flashrun.cli import render, terminal
from flashrun.cli.failure import ExitCode, Failure
from flashrun.cli.session import Session, parsed
from flashrun.spec import names
from flashrun.spec.run import TERMINAL, FlashRun, Phase, ProgressStatus

POLL_SECONDS: Final = 1.0
LAST_LINES_SECONDS: Final = 20.0
"""How long the streams of a run that has ended may take for their last lines."""
STEPS_SECONDS: Final = 5.0
"""Shortest time between two lines about steps, where lines stay."""
LONGEST_LINE: Final = 64 * 1024
"""Longest log line that is shown, in characters."""
CONTAINERS: Final = ("model", "packages", "trainer")


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
            terminal.say(f"{run.name}: {render.progress_line(status)}")

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

    def __init__(self, live: Live) -> None:
        self._live = live

    def line(self, text: str) -> None:
        """Print the line above the live one."""
        self._live.console.print(Text.from_ansi(text))

    def status(self, run: FlashRun) -> None:
        """Renew the live line."""
        text = Text(f"{run.name} · {render.progress_line(run.status)}", style="cyan")
        self._live.update(Spinner("dots", text))

    def notice(self, text: str) -> None:
        """Print the notice above the live line."""
        self._live.console.print(Text(text, style="dim"))


@contextlib.contextmanager
def view() -> Any:
    """Yield the view that fits standard output."""
    console = terminal.console()
    if not console.is_terminal:
        yield PlainView()
        return
    with Live(console=console, transient=True, refresh_per_second=8) as live:
        yield LiveView(live)


@dataclass
class LogStreams:
    """The log streams of one run's pods, merged as their lines come."""

    session: Session
    run: FlashRun
    show: Callable[[str], None]
    tasks: dict[tuple[str, str], "asyncio.Task[None]"] = field(default_factory=dict)

    async def look(self) -> None:
        """Begin a stream for every container that has started and has none."""
        for pod in await pods_of(self.session, self.run):
            name = pod["metadata"]["name"]
            for container in started_containers(pod):
                if (name, container) not in self.tasks:
                    task = asyncio.create_task(self._stream(name, container))
                    self.tasks[name, container] = task

    async def finish(self) -> None:
        """Wait for the last lines."""
        await self.look()
        if self.tasks:
            _, late = await asyncio.wait(self.tasks.values(), timeout=LAST_LINES_SECONDS)
            await _cancelled(late)

    async def stop(self) -> None:
        """End the streams where they are."""
        await _cancelled(self.tasks.values())

    async def _stream(self, pod: str, container: str) -> None:
        """Show a container's log; after a lost connection, go on where it was."""
        shown = 0
        while True:
            try:
                seen = 0
                async for line in self.session.cluster.logs(
                    self.run.namespace, pod, container, follow=True
                ):
                    seen += 1
                    if seen > shown:
                        shown = seen
                        self.show(prefixed(container, line))
                return
            except Exception as error:
                if not getattr(error, "temporary", False):
                    return  # the pod is gone; what it left is in storage
                await asyncio.sleep(POLL_SECONDS)


async def _cancelled(tasks: Any) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def prefixed(container: str, line: str) -> str:
    """Return a log line as it is shown; those of init containers name their container."""
    shown = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}… (cut)"
    return shown if container == "trainer" else f"[{container}] {shown}"


async def pods_of(session: Session, run: FlashRun) -> list[dict[str, Any]]:
    """Return the run's pods, oldest first."""
    labels = {names.RUN_LABEL: run.name, names.RUN_UID_LABEL: run.uid}
    pods = await session.cluster.list("Pod", run.namespace, labels)
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


def started_containers(pod: dict[str, Any]) -> list[str]:
    """Return the containers of a pod that have run or are running, in the order they run."""
    status = pod.get("status", {})
    statuses = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    started = {
        item["name"]
        for item in statuses
        if item.get("state", {}).keys() & {"running", "terminated"} and not _never_started(item)
    }
    return [name for name in CONTAINERS if name in started]


def _never_started(status: dict[str, Any]) -> bool:
    """Say whether a container ended before its image was there; it has no log."""
    terminated = status.get("state", {}).get("terminated")
    return terminated is not None and not terminated.get("containerID")


async def follow(session: Session, name: str, shown: View, *, log: bool = True) -> FlashRun:
    """Show a run until it has ended, and return it as it is then."""
    run = await session.run(name)
    streams = LogStreams(session, run, shown.line)
    try:
        async for state in _states(session, name, run, shown):
            run = state
            shown.status(run)
            if log:
                await _looked(streams)
        if log:
            await streams.finish()
            await _unseen(session, run, streams, shown)
    finally:
        await streams.stop()
    return run


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


async def _looked(streams: LogStreams) -> None:
    """Look for new pods; trouble shows in the run's own state, which is asked for as well."""
    try:
        await streams.look()
    except Exception as error:
        if not getattr(error, "temporary", False):
            raise


async def _unseen(session: Session, run: FlashRun, streams: LogStreams, shown: View) -> None:
    """Show from storage the logs of attempts whose pods were gone before they could be read."""
    from flashrun.store import StoreError

    seen = {pod for pod, _ in streams.tasks}
    for attempt in run.status.attempts:
        if attempt.pod and attempt.pod not in seen:
            try:
                for line in await stored_log(session, run, attempt.number):
                    shown.line(line)
            except (Failure, StoreError) as error:
                shown.notice(f"the log of attempt {attempt.number} cannot be shown: {error}")


async def stored_log(session: Session, run: FlashRun, attempt: int) -> list[str]:
    """Return the lines of an attempt's log in storage."""
    key = names.log_key(run.storage_prefix, attempt)
    data = await session.stored(lambda store: store.get_bytes(key))
    return data.decode(errors="replace").splitlines()


def conclude(run: FlashRun) -> None:
    """Say how a followed run ended; ends the command with 1 when it did not succeed."""
    terminal.say(*render.outcome(run))
    if run.status.phase is not Phase.SUCCEEDED:
        raise typer.Exit(ExitCode.RUN_FAILED)
