"""Follow a run until it has ended: print its log as it is written, and a line with its progress.

One that is paused because its budget is used up counts as ended.

Following ends only when the containers' logs have been read to their ends, or to the last words of
the trainer. Log lines that could not
be read from a pod, because it is gone or was never seen, are read from storage.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import typer

from flashrun.api.pod import TRAINER_CONTAINER
from flashrun.api.reasons import Phase, Reason
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.connection import ClusterSession, parse_run
from flashrun.cli.cluster.metrics_feed import MetricsFeed
from flashrun.cli.cluster.pod_log import SILENT_SECONDS, PodLog, lines_after
from flashrun.cli.cluster.run_logs import (
    attempt_pod_name,
    format_log_line,
    list_pods,
    node_prefix,
    read_stored_log,
    started_containers,
)
from flashrun.cli.cluster.run_polling import poll_run, settled_manifest
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.failure import ExitCode, Failure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.run_view import RunView, ViewKind, open_view
from flashrun.cluster_errors import ClusterError
from flashrun.store_errors import StoreError

REDRAW_SECONDS: Final = 1.0
"""How often clocks are drawn again while the API server does not answer."""
EARLIER_LOG_SECONDS: Final = 5.0
"""How long the log of a container waits for the end of that of the container before it."""
NEWS_SECONDS: Final = 10.0
"""For how long something is expected after a log has ended: the next container, or the result."""
UNSEEN_SECONDS: Final = 5.0
"""How long the operator may take to see a run before that is news."""
LAST_LINES_SECONDS: Final = 20.0
"""How long to wait for the last log lines of a run that has ended."""


@dataclass
class LogStreams:
    """The logs of one run's pods, merged in the order in which their lines arrive."""

    session: ClusterSession
    run: FlashRun
    view: RunView
    attempt: int | None = None
    """The only attempt to show; None for all."""
    logs: dict[tuple[str, str], PodLog] = field(default_factory=dict)
    tasks: "list[asyncio.Task[None]]" = field(default_factory=list)
    newest: "dict[str, asyncio.Task[None]]" = field(default_factory=dict)
    """The task of each pod's last container; the containers of a pod run one after the other."""
    ended: float = float("-inf")
    """When a log has ended last, by the monotonic clock."""

    @property
    def expect_change(self) -> bool:
        """Whether all logs have ended, and one of them a moment ago."""
        newest = max((self.ended, *(log.newest for log in self.logs.values())))
        return time.monotonic() - newest < NEWS_SECONDS and not self._unread

    async def start_new(self, run: FlashRun) -> None:
        """Begin to read every container that has started and is not read yet."""
        self.run = run
        for pod in await list_pods(self.session, run):
            name = pod["metadata"]["name"]
            if self.attempt is not None and name != attempt_pod_name(run, self.attempt):
                continue
            for container in started_containers(pod):
                if (name, container) not in self.logs:
                    log = PodLog(self.session.cluster, run.namespace, name, container)
                    self.logs[name, container] = log
                    earlier = self.newest.get(name)
                    task = asyncio.create_task(self._show(log, node_prefix(pod), earlier))
                    self.newest[name] = task
                    self.tasks.append(task)

    def raise_errors(self) -> None:
        """Raise what has ended a stream, such as a closed pipe or a full disk."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def finish(self) -> None:
        """Show the last lines: from the pods while they exist, otherwise from storage."""
        deadline = time.monotonic() + LAST_LINES_SECONDS
        while (unread := self._unread) and time.monotonic() < deadline:
            await asyncio.wait(unread, timeout=SILENT_SECONDS)
        await _cancel(self.tasks)
        self.raise_errors()
        for attempt in self.run.status.attempts:
            log = self.logs.get((attempt.pod, TRAINER_CONTAINER))
            asked = self.attempt in (None, attempt.number)
            if asked and attempt.pod and not (log and (log.complete or log.said_last_words)):
                await self._show_stored(attempt.number, tuple(log.tail) if log else ())

    @property
    def _unread(self) -> "list[asyncio.Task[None]]":
        """The tasks of containers whose logs go on, as far as is known."""
        streams = zip(self.logs.values(), self.tasks, strict=True)
        return [task for log, task in streams if not (task.done() or log.said_last_words)]

    async def stop(self) -> None:
        """Stop reading."""
        await _cancel(self.tasks)

    async def _show(
        self, log: PodLog, prefix: str, earlier: "asyncio.Task[None] | None" = None
    ) -> None:
        """Show a container's lines after those of the container that ran ``earlier``."""
        if earlier is not None:
            await asyncio.wait([earlier], timeout=EARLIER_LOG_SECONDS)
        try:
            async for line in log.read_lines():
                self.view.show_log_line(format_log_line(log.container, line, prefix))
        except ClusterError as error:
            self.view.show_notice(f"the log of {log.pod} cannot be read: {error}")
        self.ended = time.monotonic()

    async def _show_stored(self, attempt: int, printed: Sequence[str]) -> None:
        """Show from storage what an attempt wrote after the lines ``printed``."""
        try:
            lines = await read_stored_log(self.session, self.run, attempt)
        except (Failure, StoreError) as error:
            self.view.show_notice(f"the log of attempt {attempt} is not complete: {error}")
            return
        for line in lines_after(lines, printed):
            self.view.show_log_line(format_log_line(TRAINER_CONTAINER, line))


async def _cancel(tasks: Iterable["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def follow_run(
    session: ClusterSession,
    name: str,
    view: RunView,
    *,
    log: bool = True,
    attempt: int | None = None,
) -> FlashRun:
    """Show a run until it, or the one ``attempt`` of it, has ended; return it as it is then."""
    run = await session.get_run(name)
    log = log and view.takes_log
    streams = LogStreams(session, run, view, attempt)
    feed = MetricsFeed(session, view)
    redrawing = asyncio.create_task(_redraw(view))
    patient_until = time.monotonic() + UNSEEN_SECONDS
    try:
        async for current in poll_run(
            session, run, view.show_notice, lambda: streams.expect_change
        ):
            run = current
            if not (_is_unseen(run) and time.monotonic() < patient_until):
                view.show_status(run)
            if view.takes_metrics:
                feed.update(run)
            if log:
                await _start_new_logs(streams, run)
                streams.raise_errors()
            if attempt is not None and _has_ended(run, attempt):
                break
        if log:
            await streams.finish()
        if view.takes_metrics:
            await feed.finish(run)
    finally:
        await _cancel([redrawing])
        await feed.stop()
        await streams.stop()
    return run


async def follow_or_detach(
    session: ClusterSession,
    name: str,
    output: OutputFormat = OutputFormat.TABLE,
    kind: ViewKind = ViewKind.LINE,
    *,
    log: bool = True,
    attempt: int | None = None,
) -> bool:
    """Do as ``follow_run`` in a view; return whether the view has left the answer for people.

    On Ctrl-C print how to come back and exit, while the run goes on. So it is when another program
    ends this one: a terminal must not be left on its other screen.
    """
    ended: list[int] = []
    try:
        with _ended_by_signals(ended), open_view(output, kind) as view:
            await follow_run(session, name, view, log=log, attempt=attempt)
            if view.leaves_answer:
                view.show_status(parse_run(await settled_manifest(session, name)))
            return view.leaves_answer
    except asyncio.CancelledError:
        again = f"flash log {name} -f" if log else f"flash status {name} -f"
        terminal.say(f"detached from {name}. Come back: {again}; stop it: flash cancel {name}")
        raise typer.Exit(128 + ended[0] if ended else ExitCode.INTERRUPTED) from None


@contextlib.contextmanager
def _ended_by_signals(ended: list[int]) -> Iterator[None]:
    """Cancel the current task on SIGTERM and SIGHUP; the number of the signal goes to ``ended``."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        ended.append(number)
        task.cancel()

    numbers = (signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _is_unseen(run: FlashRun) -> bool:
    return run.status.pending is not None and run.status.pending.reason is Reason.UNSEEN


def _has_ended(run: FlashRun, attempt: int) -> bool:
    return any(item.number == attempt and item.end for item in run.status.attempts)


async def _redraw(view: RunView) -> None:
    """Redraw the view every second, and when the window has another size."""
    resized = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, resized.set)
    try:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REDRAW_SECONDS):
                    await resized.wait()
            resized.clear()
            view.redraw()
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


async def _start_new_logs(streams: LogStreams, run: FlashRun) -> None:
    """Start new log streams; a temporary error is ignored, as polling the run reports it too."""
    try:
        await streams.start_new(run)
    except ClusterError as error:
        if not error.temporary:
            raise


def report_outcome(run: FlashRun, *, printed: bool = False) -> None:
    """Print how a followed run ended, unless it was; exits with 1 when it did not succeed."""
    if not printed:
        terminal.say(*formatting.outcome(run))
    if run.status.phase is not Phase.SUCCEEDED:
        raise typer.Exit(ExitCode.RUN_FAILED)
