"""Watches: kopf opens them and continues them, and ``watch_session`` gives us what they show.

kopf runs in a thread with an event loop of its own, because it cancels every task of its loop when
it stops, and must not block other work when it hangs. It may end in a long outage: that costs time
until the next list, but no correctness. It is started again when it ends. Namespaces come and go
while it runs: it opens and ends watches when its insights, which we give to it, are revised.

kopf is configured to write neither finalizers nor annotations nor events, and its handlers are
never called.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Container
from typing import Any, Final

import kopf
from kopf._cogs.structs.references import Insights, NamespaceName

from flashrun.api import names
from flashrun.cluster_login import Connection
from flashrun.cluster_requests import RESOURCES
from flashrun.controller import operator_metrics
from flashrun.controller.bounded_answers import PAGE
from flashrun.controller.cache_filler import Add, CacheFiller
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.watch_session import Receiver, watch_session
from flashrun.controller.watched_objects import WATCHED_KINDS
from flashrun.plan.types import Object

LONGEST_PAUSE_SECONDS: Final = 30.0
PULSE_SECONDS: Final = 5.0
_STEADY_SECONDS: Final = 120.0
_START_SECONDS: Final = 60.0
_KINDS: Final = {RESOURCES[kind].plural: kind for kind in WATCHED_KINDS}
_END_SECONDS: Final = 10.0
"""How long kopf may take to end; what is left then is cancelled, and cancelled again."""
_CANCELLATIONS: Final = 5
_CLOSING_SECONDS: Final = 0.1
"""How long TLS connections take to close, which no task waits for."""
_BLIND_SECONDS: Final = 600.0
"""After so long without a sign of one watch, a restart is due: twice what a connection lasts."""

log = logging.getLogger(__name__)


class Watch:
    """The watches of all served namespaces."""

    def __init__(
        self,
        namespaces: Callable[[], tuple[str, ...]],
        connect: Callable[[], Connection],
        add: Add,
        deleted: Callable[[Object], None] = lambda manifest: None,
        cache: ObjectCache | None = None,
    ) -> None:
        """Watch what ``namespaces`` returns; every function is called in another thread.

        ``deleted`` gets each FlashRun that was deleted while it was watched. What is seen is kept
        in ``cache``.
        """
        self._namespaces, self._connect = namespaces, connect
        self._cache = cache or ObjectCache()
        self._receiver = CacheFiller(self._cache, add, deleted)
        self._watched: tuple[str, ...] = ()
        self._stop, self._anew = threading.Event(), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = self._pulse = time.monotonic()
        self._since: dict[str, float] = {}
        """Since when each namespace is watched: those that come and go hide nothing of others."""
        self._thread = threading.Thread(target=self._supervise, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns at once."""
        self._stop.set()

    def begin_anew(self) -> None:
        """List everything again, because something was not shown; returns at once."""
        self._anew.set()

    def problem(self) -> str:
        """Return a problem of the watches, or an empty string."""
        now = time.monotonic()
        if not self._thread.is_alive():
            return "the watches have ended"
        if now - self._started < _START_SECONDS:
            return ""
        if now - self._pulse > 12 * PULSE_SECONDS:
            return f"the event loop of the watches has been stuck for {now - self._pulse:.0f} s"
        ages = {name: now - since for name, since in self._since.items()}
        steady = {name: age for name, age in ages.items() if age >= _START_SECONDS}
        alive, expected = self._watchers(steady), len(WATCHED_KINDS) * len(steady)
        if alive < expected:
            return f"{alive} of {expected} watches are alive"
        silences = (min(self._cache.longest_silence((name,)), age) for name, age in steady.items())
        silence = max(silences, default=0.0)
        return f"a watch has shown nothing for {silence:.0f} s" if silence > _BLIND_SECONDS else ""

    def _watchers(self, namespaces: Container[str] | None = None) -> int:
        """Return how many watches there are, of all namespaces or of these."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return 0
        watchers = (task.get_name() for task in asyncio.all_tasks(loop))
        places = (name.rpartition("@")[2] for name in watchers if name.startswith("watcher for "))
        return sum(namespaces is None or place in namespaces for place in places)

    def _supervise(self) -> None:
        pause = 1.0
        while not self._stop.is_set():
            self._started = self._pulse = time.monotonic()
            self._watched = self._namespaces()
            self._since = dict.fromkeys(self._watched, self._started)
            if not self._watched:  # to kopf, no namespaces are all namespaces
                self._stop.wait(1.0)
                continue
            try:
                self._run()
            except Exception as error:
                log.warning("the watches ended: %s: %s", type(error).__name__, error)
            if self._stop.is_set():
                return
            if self._namespaces() != self._watched or self._anew.is_set():
                self._anew.clear()
                continue
            operator_metrics.WATCH_RESTARTS.inc()
            steady = time.monotonic() - self._started > _STEADY_SECONDS
            pause = 1.0 if steady else min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._stop.wait(pause)

    def _run(self) -> None:
        """Watch until kopf has ended or has to.

        Not ``asyncio.run``: it would wait for tasks that go on although they are cancelled.
        """
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._operate())
        finally:
            loop.close()

    async def _operate(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._cache.follow_namespaces(self._watched)
        ended, insights = asyncio.Event(), Insights()
        operating = asyncio.create_task(
            kopf.operator(
                registry=_registry(self._connect, self._receiver),
                settings=_settings(),
                namespaces=self._watched,
                standalone=True,
                insights=insights,
                stop_flag=ended,
            )
        )
        pulse = asyncio.create_task(self._beat(ended, insights))
        await asyncio.wait((operating, pulse), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait((operating,), timeout=_END_SECONDS)
        await _end_tasks()
        if not operating.done():
            log.warning("the watches do not end, and are left behind")
        elif not operating.cancelled():
            operating.result()

    async def _beat(self, ended: asyncio.Event, insights: Insights) -> None:
        """Record that the loop runs; let it follow the namespaces.

        End it on ``stop``, and when all watches have to begin anew.
        """
        while not ended.is_set():
            self._pulse = time.monotonic()
            await asyncio.sleep(PULSE_SECONDS)
            if self._stop.is_set() or self.problem() or self._anew.is_set():
                ended.set()
            elif (wanted := self._namespaces()) != self._watched:
                await self._follow(wanted, insights)
            else:  # what an ended watch has shown last
                self._cache.follow_namespaces(self._watched)

    async def _follow(self, wanted: tuple[str, ...], insights: Insights) -> None:
        """Watch ``wanted`` and nothing else; the watches that stay are not touched."""
        async with insights.revised:
            insights.namespaces.clear()
            insights.namespaces.update(map(NamespaceName, wanted))
            self._watched, now = wanted, time.monotonic()
            self._since = {name: self._since.get(name, now) for name in wanted}
            self._cache.follow_namespaces(wanted)
            insights.revised.notify_all()


async def _end_tasks() -> None:
    """Cancel all other tasks of this loop, until they have ended or it is not worth waiting.

    kopf 1.45 waits without limit for a watch that the API server has not answered yet.
    """
    for _ in range(_CANCELLATIONS):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            break
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=1.0)
    await asyncio.sleep(_CLOSING_SECONDS)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    # These two end inside the HTTP client, where a time-out is safe. The inactivity timer can
    # cancel the whole watcher, which kopf does not restart.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.inactivity_timeout = 1e9
    settings.watching.connect_timeout = 5
    settings.watching.chunk_size = PAGE
    settings.watching.label_selectors["batch", "v1", "jobs"] = names.RUN_UID_LABEL
    settings.watching.label_selectors["", "v1", "pods"] = names.RUN_UID_LABEL
    return settings


def _registry(connect: Callable[[], Connection], receiver: Receiver) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        return watch_session(await asyncio.to_thread(connect), _KINDS, receiver)

    def ignore(**_: Any) -> None:
        """Stand for a handler: kopf watches the kinds that have one."""

    kopf.on.login(registry=registry)(login)
    kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)(ignore)
    kopf.on.event("batch", "v1", "jobs", registry=registry, id="job")(ignore)
    kopf.on.event("", "v1", "pods", registry=registry, id="pod")(ignore)
    return registry
