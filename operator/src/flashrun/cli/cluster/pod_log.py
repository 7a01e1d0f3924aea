"""Read one container's log so that every line comes once, despite lost connections and rotation.

The API server's log stream ends when the container ends, and also when a connection is lost, a
kubelet restarts, or a log file is rotated; the stream does not say which. So the pod's status is
read before each reading of the log, and only a reading that began after the container had ended is
the last one. Each further reading begins a little before the newest line and skips known lines.
"""

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from flashrun.api.pod import ENDED_PHASES, LAST_WORDS, container_statuses
from flashrun.api.times import parse_time
from flashrun.cluster_errors import ClusterError, Invalid, NotFound

if TYPE_CHECKING:
    from flashrun.cluster import Cluster

FIRST_PAUSE_SECONDS: Final = 0.1
"""Pause before the log is read again; it doubles while nothing new comes.

A stream ends a moment before the pod's status says that the container has ended.
"""
LONGEST_PAUSE_SECONDS: Final = 1.0
OVERLAP: Final = timedelta(seconds=2)
"""How far readings overlap, as lines of stdout and stderr may be slightly out of order."""
SILENT_SECONDS: Final = 0.2
"""For how long nothing follows a trainer's last words until they are believed."""
_LAST_WORDS: Final = re.compile(LAST_WORDS.replace("%d", "[0-9]+"))
_TAIL_LINES: Final = 8
"""How many lines identify a place in a log."""


class RecentLines:
    """The newest lines of a log, which the next reading brings again."""

    def __init__(self) -> None:
        self._lines: deque[tuple[datetime, str]] = deque()
        self._expected_again: Counter[str] = Counter()
        self.since: datetime | None = None
        """When the next reading has to begin; None for the beginning of the log."""

    def begin_reading(self) -> None:
        """Expect every recent line once more."""
        self._expected_again = Counter(line for _, line in self._lines)

    def is_new(self, line: str) -> bool:
        """Return whether a line, with its timestamp, was not read before; remember it."""
        if self._expected_again[line]:
            self._expected_again[line] -= 1
            return False
        if (time := _timestamp(line)) is not None:
            self._lines.append((time, line))
            # Servers truncate the time to whole seconds, so lines of that second come again.
            self.since = (time - OVERLAP).replace(microsecond=0)
            while self._lines[0][0] < self.since:
                self._lines.popleft()
        return True


def _timestamp(line: str) -> datetime | None:
    """Return the time at the beginning of a line; None for messages of the server itself."""
    try:
        time = parse_time(line.partition(" ")[0])
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@dataclass
class PodLog:
    """The log of one container."""

    cluster: "Cluster"
    namespace: str
    pod: str
    container: str
    complete: bool = False
    """Whether its last line has been read."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    """The newest lines, without timestamps."""
    newest: float = 0.0
    """When the newest line came, by the monotonic clock."""
    _recent: RecentLines = field(default_factory=RecentLines)

    async def read_lines(self) -> AsyncIterator[str]:
        """Yield each line once, until the container has ended or its pod is gone.

        Raises:
            ClusterError: the log may not be read.
        """
        pause = FIRST_PAUSE_SECONDS
        while not self.complete:
            ended = False
            try:
                pod = await self.cluster.find("Pod", self.namespace, self.pod)
                if pod is None:
                    return
                ended = container_has_ended(pod, self.container)
                async for line in self._read_once(follow=not ended):
                    pause = FIRST_PAUSE_SECONDS
                    yield line
                self.complete = ended
            except (NotFound, Invalid):
                if ended:
                    return  # the node has removed the log
            except ClusterError as error:
                if not error.temporary:
                    raise
            if not self.complete:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _read_once(self, *, follow: bool) -> AsyncIterator[str]:
        """Yield the lines of one reading that no earlier reading brought."""
        self._recent.begin_reading()
        async for line in self.cluster.logs(
            self.namespace,
            self.pod,
            self.container,
            follow=follow,
            since=self._recent.since,
            timestamps=True,
        ):
            if self._recent.is_new(line):
                text = line.partition(" ")[2] if _timestamp(line) else line
                self.tail.append(text)
                self.newest = time.monotonic()
                yield text

    @property
    def said_last_words(self) -> bool:
        """Whether the newest line is the last one that a trainer writes.

        The kubelet closes a log a second after its container has ended.
        """
        silent = time.monotonic() - self.newest >= SILENT_SECONDS
        return silent and bool(self.tail) and _LAST_WORDS.search(self.tail[-1]) is not None


def container_has_ended(pod: dict[str, Any], container: str) -> bool:
    """Return whether a container of ``pod`` has ended, so that its log is complete."""
    statuses = container_statuses(pod)
    states = [item.get("state", {}) for item in statuses if item["name"] == container]
    ended = any("terminated" in state for state in states)
    return ended or pod.get("status", {}).get("phase") in ENDED_PHASES


def lines_after(stored: Sequence[str], printed: Sequence[str]) -> Sequence[str]:
    """Return the lines of ``stored`` after the last place where the lines ``printed`` occur in it.

    When they do not occur, all lines are returned: a repeated line is better than a missing one.
    """
    if not printed:
        return stored
    ends = range(len(stored), len(printed) - 1, -1)
    last = list(printed)
    return next((stored[end:] for end in ends if stored[end - len(last) : end] == last), stored)
