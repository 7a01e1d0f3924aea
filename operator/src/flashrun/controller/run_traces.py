"""One trace for each run: how its time from the submission to its first step was spent.

A trace is sent once, when the status of the run first shows a step, or the end of a run that did
none: another operator process finds that status, and does not send it again. No pass waits for it.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from flashrun.api.record_reader import RecordRefused, read_record
from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.daemon_thread import in_daemon_thread
from flashrun.plan.run_start import RunStart, run_start, with_first_row
from flashrun.plan.types import Observed
from flashrun.store import Store
from flashrun.store_errors import StoreError
from flashrun.store_metrics import list_parts

WAITING_LIMIT: Final = 1_000
"""Most traces that wait; the oldest is sent without the trainer's own times."""
ROW_SECONDS: Final = 120.0
"""How long a trace waits for the first row of metrics, which is uploaded after the heartbeat."""
LOOK_SECONDS: Final = 10.0
"""Time between two looks for it."""
_ROW_BYTES: Final = 1024 * 1024
"""Longest first part of the metrics that is read."""

log = logging.getLogger(__name__)

Send = Callable[[RunStart], None]
"""Hands a trace over to what sends it; returns at once."""


@dataclass(frozen=True)
class _Waiting:
    """A trace that waits for the first row of metrics."""

    start: RunStart
    until: float


class RunTraces:
    """Collects the starts of runs, and hands each over once; all calls are of one event loop."""

    def __init__(
        self, store: Store, send: Send | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Without ``send`` nothing is collected."""
        self._store, self._send, self._clock = store, send, clock
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        """Uid of a run → its trace."""

    def note(self, run: FlashRun, status: FlashRunStatus, observed: Observed) -> None:
        """Let the trace of ``run`` be sent if ``status``, which was just written, is due for it.

        Nothing that goes wrong here ends the pass.
        """
        if self._send is None or status == run.status:
            return
        try:
            start = run_start(run, status, observed, datetime.now(UTC))
        except Exception:
            log.exception("the trace of a run cannot be made")
            return
        if start is None or start.uid in self._waiting:
            return
        self._waiting[start.uid] = _Waiting(start, self._clock() + ROW_SECONDS)
        if len(self._waiting) > WAITING_LIMIT:
            self._hand_over(next(iter(self._waiting)))

    async def run(self) -> None:
        """Hand traces over for ever; what still waits in the end is handed over as it is."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for uid in list(self._waiting):
                self._hand_over(uid)

    async def look(self) -> None:
        """Look once for the first rows of all traces that wait."""
        for uid, waiting in list(self._waiting.items()):
            row = None
            if waiting.start.attempt:
                row = await in_daemon_thread(partial(self._first_row, waiting.start))
            due = not waiting.start.attempt or waiting.until <= self._clock()
            if row is not None or due:
                self._hand_over(uid, row)

    def _hand_over(self, uid: str, row: MetricsRow | None = None) -> None:
        waiting = self._waiting.pop(uid, None)
        if waiting is None or self._send is None:
            return
        try:
            self._send(waiting.start if row is None else with_first_row(waiting.start, row))
        except Exception:
            log.exception("the trace of a run was not sent")

    def _first_row(self, start: RunStart) -> MetricsRow | None:
        """Return the row with the seconds of the attempt's start; None while there is none.

        Code in the pods can write there: a row is read within its bounds.
        """
        try:
            parts = (part for part in list_parts(self._store, start.prefix))
            first = next((part for part in parts if part.attempt == start.attempt), None)
            if first is None or first.size > _ROW_BYTES:
                return None
            lines = self._store.get_bytes(first.key, limit=_ROW_BYTES).splitlines()
        except StoreError:
            return None
        except Exception:  # the operator must not end because of a trace
            log.exception("the first row of metrics cannot be read")
            return None
        for line in lines[:8]:
            try:
                row = read_record(line, MetricsRow, datetime.now(UTC))
            except RecordRefused:
                continue
            if row.is_first:
                return row
        return None
