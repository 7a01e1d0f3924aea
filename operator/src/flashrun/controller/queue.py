"""The queue of runs that are due.

A key is in the queue at most once and is never handled twice at a time; a key that is added while
it is handled becomes due again. Failures are retried with exponential back-off. Namespaces take
turns, so that one with thousands of runs does not delay the others.
"""

import asyncio
import contextlib
import heapq
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 40.0
"""What a run failed for may be over: within a minute it is tried again, the jitter included."""


class RunKey(NamedTuple):
    """Namespace and name of a run."""

    namespace: str
    name: str


class Promised(float):
    """Seconds until a key is due again, which may then wait for others for ``PATIENCE_SECONDS``."""


PATIENCE_SECONDS: Final = 3.0
"""How long a key that was promised waits in a long queue before it overtakes the others."""


class Queue:
    """A queue of keys for several workers; all calls are made in one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: dict[RunKey, float] = {}
        self._later: list[tuple[float, RunKey]] = []
        self._promised: list[tuple[float, RunKey]] = []
        """When keys overtake others, unless they were handled before."""
        self._ready: OrderedDict[str, OrderedDict[RunKey, None]] = OrderedDict()
        self._active: dict[RunKey, float] = {}
        self._failures: dict[RunKey, int] = {}
        self._changed = asyncio.Event()

    def add(self, key: RunKey, delay: float = 0.0) -> None:
        """Make ``key`` due after ``delay`` seconds, unless it is due earlier already."""
        due = self._clock() + delay
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, key))
        self._changed.set()

    async def work(self, handle: Callable[[RunKey], Awaitable[float | None]]) -> None:
        """Pass keys that are due to ``handle``, one after the other, for ever.

        Several calls of ``work`` handle several keys at a time. ``handle`` returns the seconds
        until the key is due again, ``Promised`` or not, or None. It logs its own exceptions; after
        one, the key is retried with back-off.
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
            if isinstance(delay, Promised):
                latest = self._clock() + delay + PATIENCE_SECONDS
                heapq.heappush(self._promised, (latest, key))

    def hurry(self) -> None:
        """Retry at once all keys that failed: what they failed for may be over."""
        for key in list(self._failures):
            self._failures.pop(key)
            self.add(key)

    def __len__(self) -> int:
        """Return how many keys are due now and not in progress."""
        now = self._clock()
        return sum(due <= now for due in self._due.values())

    def oldest_seconds(self) -> float:
        """Return the longest time in seconds for which a key has been due or in progress."""
        now = self._clock()
        waits = [now - due for key, due in self._due.items() if key not in self._active]
        return max([0.0, *waits, *(now - since for since in self._active.values())])

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
        """Move keys that are due to the ready keys; skip entries that an earlier one replaced."""
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                self._ready.setdefault(key.namespace, OrderedDict())[key] = None
        while self._promised and self._promised[0][0] <= now:
            _, key = heapq.heappop(self._promised)
            if key in (keys := self._ready.get(key.namespace, OrderedDict())):
                keys.move_to_end(key, last=False)

    async def _wait(self) -> None:
        self._changed.clear()
        pause = self._later[0][0] - self._clock() if self._later else None
        # Not wait_for: before Python 3.12 it loses a cancellation that arrives with the change, and
        # the operator would not end.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._changed.wait()

    def _back_off(self, key: RunKey) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(FIRST_RETRY_SECONDS * 2.0 ** (failures - 1), LONGEST_RETRY_SECONDS)
        return pause * random.uniform(0.75, 1.25)
