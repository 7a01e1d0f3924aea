"""Health probes, and the metrics endpoint.

``/healthz`` fails when a restart would help: the event loop lags, watches are missing or blind, the
lease was taken and is not renewed, or a run has been due for too long. ``/readyz`` succeeds when
this replica acts and has read storage, or waits for the lease.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web

from flashrun.controller import operator_metrics
from flashrun.listening import listen_on_all_addresses

LAG_SECONDS: Final = 5.0
OLDEST_SECONDS: Final = 300.0
_BEAT_SECONDS: Final = 1.0

Check = Callable[[], str]
"""Returns a problem, or an empty string."""


class Health:
    """Collects the problems of all parts; each part adds one check."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat = clock()
        self._worst_lag = 0.0
        self.checks: list[Check] = [self._lag]
        self.waits_for = "the API server or the FlashRun kind is missing"
        """What this replica needs before it is ready; empty when it is."""

    def problems(self) -> list[str]:
        """Return the present problems."""
        return [problem for check in self.checks if (problem := check())]

    async def measure_lag(self) -> None:
        """Measure the lag of the event loop; never returns."""
        while True:
            self._beat = self._clock()
            await asyncio.sleep(_BEAT_SECONDS)
            self._worst_lag = self._clock() - self._beat - _BEAT_SECONDS

    async def serve(self, port: int) -> web.AppRunner:
        """Serve probes and metrics until the returned runner is cleaned up; port 0 is any port."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", _metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listen_on_all_addresses(port)).start()
        return runner

    def _lag(self) -> str:
        lag = max(self._worst_lag, self._clock() - self._beat - _BEAT_SECONDS)
        return f"the event loop lags by {lag:.1f} s" if lag > LAG_SECONDS else ""

    async def _healthz(self, _: web.Request) -> web.Response:
        problems = self.problems()
        return web.Response(text="\n".join(problems) or "ok", status=500 if problems else 200)

    async def _readyz(self, _: web.Request) -> web.Response:
        text = f"not ready: {self.waits_for}" if self.waits_for else "ok"
        return web.Response(text=text, status=503 if self.waits_for else 200)


async def _metrics(_: web.Request) -> web.Response:
    body, content_type = operator_metrics.exposition()
    return web.Response(body=body, headers={"Content-Type": content_type})
