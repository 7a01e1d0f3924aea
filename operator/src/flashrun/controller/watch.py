"""Watches: kopf as a source of the names of changed runs, and nothing more.

kopf runs in a thread with an event loop of its own, because it cancels every task of its loop when
it stops, and must not block other work when it hangs. It may lose events, or end in a long outage:
that costs time until the next resync, but no correctness. It is started again when it ends.

Handlers write nothing, and kopf is configured to write neither finalizers nor annotations nor
events.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import kopf

from flashrun.api import names
from flashrun.cluster_login import Connection
from flashrun.cluster_requests import RESOURCES
from flashrun.controller import operator_metrics
from flashrun.controller.bounded_answers import PAGE
from flashrun.controller.metadata_session import metadata_session
from flashrun.controller.queue import RunKey
from flashrun.controller.served_namespaces import WATCHED_KINDS
from flashrun.controller.storage_threads import call_storage
from flashrun.plan.types import Object

LONGEST_PAUSE_SECONDS: Final = 30.0
PULSE_SECONDS: Final = 5.0
_STEADY_SECONDS: Final = 120.0
_START_SECONDS: Final = 60.0
_WATCHED_PLURALS: Final = frozenset(RESOURCES[kind].plural for kind in WATCHED_KINDS)

Add = Callable[[RunKey], None]
log = logging.getLogger(__name__)


class Watch:
    """The watches of all served namespaces."""

    def __init__(
        self,
        namespaces: Callable[[], tuple[str, ...]],
        connect: Callable[[], Connection],
        add: Add,
        deleted: Callable[[Object], None] = lambda manifest: None,
    ) -> None:
        """Watch what ``namespaces`` returns; every function is called in another thread.

        ``deleted`` gets each FlashRun that was deleted while it was watched.
        """
        self._namespaces, self._connect, self._add = namespaces, connect, add
        self._deleted = deleted
        self._watched: tuple[str, ...] = ()
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = self._pulse = time.monotonic()
        self._thread = threading.Thread(target=self._supervise, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns at once."""
        self._stop.set()

    def problem(self) -> str:
        """Return a problem of the watches, or an empty string."""
        now = time.monotonic()
        if not self._thread.is_alive():
            return "the watches have ended"
        if now - self._started < _START_SECONDS:
            return ""
        if now - self._pulse > 12 * PULSE_SECONDS:
            return f"the event loop of the watches has been stuck for {now - self._pulse:.0f} s"
        alive, expected = self._watchers(), len(WATCHED_KINDS) * len(self._watched)
        return "" if alive >= expected else f"{alive} of {expected} watches are alive"

    def _watchers(self) -> int:
        loop = self._loop
        if loop is None or loop.is_closed():
            return 0
        tasks = asyncio.all_tasks(loop)
        return sum(task.get_name().startswith("watcher for ") for task in tasks)

    def _supervise(self) -> None:
        pause = 1.0
        while not self._stop.is_set():
            self._started = self._pulse = time.monotonic()
            self._watched = self._namespaces()
            if not self._watched:  # to kopf, no namespaces are all namespaces
                self._stop.wait(1.0)
                continue
            try:
                asyncio.run(self._operate())
            except Exception as error:
                log.warning("the watches ended: %s: %s", type(error).__name__, error)
            if self._stop.is_set():
                return
            if self._namespaces() != self._watched:
                continue
            operator_metrics.WATCH_RESTARTS.inc()
            steady = time.monotonic() - self._started > _STEADY_SECONDS
            pause = 1.0 if steady else min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._stop.wait(pause)

    async def _operate(self) -> None:
        self._loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        pulse = asyncio.create_task(self._beat(ended))
        try:
            await kopf.operator(
                registry=_registry(self._connect, self._add, self._deleted),
                settings=_settings(),
                namespaces=self._watched,
                standalone=True,
                stop_flag=ended,
            )
        finally:
            pulse.cancel()

    async def _beat(self, ended: asyncio.Event) -> None:
        """Record that the loop runs; end it on ``stop``, or when other watches are needed."""
        while not ended.is_set():
            self._pulse = time.monotonic()
            await asyncio.sleep(PULSE_SECONDS)
            if self._stop.is_set() or self.problem() or self._namespaces() != self._watched:
                ended.set()


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


def _registry(
    connect: Callable[[], Connection], add: Add, deleted: Callable[[Object], None]
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.AiohttpSession:
        connection = await asyncio.to_thread(connect)
        credentials = kopf.ConnectionInfo(
            server=connection.server,
            ca_path=connection.ca_path,
            certificate_path=connection.certificate_path,
            private_key_path=connection.key_path,
            token=connection.token,
            insecure=connection.insecure,
        )
        return metadata_session(credentials, _WATCHED_PLURALS)

    async def run_changed(namespace: str | None, name: str | None, body: Any, **event: Any) -> None:
        if event["type"] == "DELETED":
            await call_storage(deleted, {**body, "metadata": dict(body["metadata"])})
        add(RunKey(namespace or "", name or ""))

    async def child_changed(namespace: str | None, labels: Any, **_: Any) -> None:
        if names.RUN_LABEL in labels:
            add(RunKey(namespace or "", labels[names.RUN_LABEL]))

    kopf.on.login(registry=registry)(login)
    kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)(run_changed)
    kopf.on.event("batch", "v1", "jobs", registry=registry, id="job")(child_changed)
    kopf.on.event("", "v1", "pods", registry=registry, id="pod")(child_changed)
    return registry
