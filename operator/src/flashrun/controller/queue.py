"""Which runs to look at: a queue of keys that forgets nothing and repeats nothing.

A key waits at most once. It is never worked on twice at a time; what arrives meanwhile makes it due
again. Failures come back with exponential back-off. Namespaces take turns, so that one with
thousands of runs does not hold up the others.
"""

import asyncio
import heapq
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 120.0


class RunKey(NamedTuple):
    """One run."""

    namespace: str
    name: str


class Queue:
    """Belongs to one event loop; ``add`` is to be called in it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: dict[RunKey, float] = {}
        self._later: list[tuple[float, RunKey]] = []
        self._ready: OrderedDict[str, OrderedDict[RunKey, None]] = OrderedDict()
        self._active: dict[RunKey, float] = {}
        self._failures: dict[RunKey, int] = {}
        self._changed = asyncio.Event()

    def add(self, key: RunKey, delay: float = 0.0) -> None:
        """Make ``key`` due after ``delay`` seconds, or earlier when it is so already."""
        due = self._clock() + delay
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, key))
        self._changed.set()

    async def work(self, handle: Callable[[RunKey], Awaitable[float | None]]) -> None:
        """Hand keys to ``handle``, one after the other, for ever; run several for more at a time.

        ``handle`` returns after how many seconds to look again, or None. What it raises is its own
        to log; here it means: again, with back-off.
        """
        while True:
            key = await self._next()
            self._active[key] = self._clock()
            delay: float | None
            try:
                delay = await handle(key)
            except Exception:
                delay = self._back_off(key)
            else:
                self._failures.pop(key, None)
            finally:
                del self._active[key]
                self._changed.set()
            if delay is not None:
                self.add(key, delay)

    def __len__(self) -> int:
        """Return how many keys are due now and not being worked on."""
        now = self._clock()
        return sum(due <= now for due in self._due.values())

    def oldest_seconds(self) -> float:
        """Return for how long the key that is worst off has been due or worked on."""
        now = self._clock()
        waits = [now - due for key, due in self._due.items() if key not in self._active]
        return max([0.0, *waits, *(now - begun for begun in self._active.values())])

    async def _next(self) -> RunKey:
        while True:
            self._promote()
            for namespace, keys in self._ready.items():
                key = next((key for key in keys if key not in self._active), None)
                if key is None:
                    continue
                del keys[key], self._due[key]
                self._ready.move_to_end(namespace)
                if not keys:
                    del self._ready[namespace]
                return key
            await self._wait()

    def _promote(self) -> None:
        """Move what is due by now to the ready keys; an entry that was brought forward is stale."""
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                self._ready.setdefault(key.namespace, OrderedDict())[key] = None

    async def _wait(self) -> None:
        self._changed.clear()
        pause = self._later[0][0] - self._clock() if self._later else None
        try:
            await asyncio.wait_for(self._changed.wait(), pause)
        except TimeoutError:
            return

    def _back_off(self, key: RunKey) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(FIRST_RETRY_SECONDS * 2.0 ** (failures - 1), LONGEST_RETRY_SECONDS)
        return pause * random.uniform(0.75, 1.25)
