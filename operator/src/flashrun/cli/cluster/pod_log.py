"""One container's log: every line once, in spite of lost connections and rotated files.

A stream of the API server ends when its container does, and also when a connection is cut, a
kubelet restarts, or a log file is rotated; nothing in the stream tells which it was. So the pod is
asked before each reading, and only a reading that began after the container had ended is the last.
A later reading begins a little before the newest line and leaves out what it has seen.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from flashrun.api.pod import container_statuses

if TYPE_CHECKING:
    from flashrun.cluster import Cluster

PAUSE_SECONDS: Final = 1.0
"""Time before the next reading of a container that has not ended."""
OVERLAP: Final = timedelta(seconds=2)
"""How far readings overlap: lines of the two output streams may be a little out of order."""
_TAIL: Final = 8
"""How many lines tell a place in a log."""


class Recent:
    """The newest lines, which another reading would bring again."""

    def __init__(self) -> None:
        self._lines: deque[tuple[datetime, str]] = deque()
        self._again: Counter[str] = Counter()
        self.since: datetime | None = None
        """Where the next reading has to begin; None for the beginning."""

    def begin(self) -> None:
        """Expect every recent line once more: another reading begins."""
        self._again = Counter(line for _, line in self._lines)

    def is_new(self, line: str) -> bool:
        """Say whether a line with its time has not been read before, and remember it."""
        if self._again[line]:
            self._again[line] -= 1
            return False
        if (moment := _moment(line)) is not None:
            self._lines.append((moment, line))
            # Servers cut to whole seconds: what is as old as that may come again.
            self.since = (moment - OVERLAP).replace(microsecond=0)
            while self._lines[0][0] < self.since:
                self._lines.popleft()
        return True


def _moment(line: str) -> datetime | None:
    """Return the time that a line begins with; None for what a server says in its own words."""
    try:
        found = datetime.fromisoformat(line.partition(" ")[0])
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@dataclass
class PodLog:
    """One container's log, read to its end."""

    cluster: "Cluster"
    namespace: str
    pod: str
    container: str
    whole: bool = False
    """Whether its last line has been read."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))
    """The newest lines, without times."""
    _recent: Recent = field(default_factory=Recent)

    async def lines(self) -> AsyncIterator[str]:
        """Yield each line once, until the container has ended or its pod is gone.

        Raises:
            ClusterError: the log may not be read.
        """
        from flashrun.cluster_errors import ClusterError, Invalid, NotFound

        while not self.whole:
            over = False
            try:
                pod = await self.cluster.find("Pod", self.namespace, self.pod)
                if pod is None:
                    return
                over = has_ended(pod, self.container)
                async for line in self._reading(follow=not over):
                    yield line
                self.whole = over
            except (NotFound, Invalid):
                if over:
                    return  # its node has removed the log
            except ClusterError as error:
                if not error.temporary:
                    raise
            if not self.whole:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _reading(self, *, follow: bool) -> AsyncIterator[str]:
        """Yield the lines of one reading that no earlier one brought."""
        self._recent.begin()
        async for line in self.cluster.logs(
            self.namespace,
            self.pod,
            self.container,
            follow=follow,
            since=self._recent.since,
            timestamps=True,
        ):
            if self._recent.is_new(line):
                text = line.partition(" ")[2] if _moment(line) else line
                self.tail.append(text)
                yield text


def has_ended(pod: dict[str, Any], container: str) -> bool:
    """Say whether a container of ``pod`` writes nothing more."""
    statuses = container_statuses(pod)
    states = [item.get("state", {}) for item in statuses if item["name"] == container]
    ended = any("terminated" in state for state in states)
    return ended or pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def after(stored: Sequence[str], shown: Sequence[str]) -> Sequence[str]:
    """Return what ``stored`` has after the last place where the lines ``shown`` stand in it.

    Everything, when they are not in it: a line too often is better than one too few.
    """
    if not shown:
        return stored
    ends = range(len(stored), len(shown) - 1, -1)
    wanted = list(shown)
    return next((stored[end:] for end in ends if stored[end - len(wanted) : end] == wanted), stored)
