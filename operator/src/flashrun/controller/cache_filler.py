"""Keeps what the watches show in the cache, and makes runs due.

A Job that begins changes several times within a moment, and so do its pods and the status of its
run: one pass sees all of it. What this process wrote to a run is known to the pass that wrote it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import Raw
from typing_extensions import override

from flashrun.api import names
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.queue import RunKey
from flashrun.controller.storage_threads import call_storage
from flashrun.controller.watch_session import Page, Receiver
from flashrun.controller.watched_objects import (
    UNREADABLE,
    WatchedObject,
    version_number,
    watched_object,
)
from flashrun.plan.types import Object

SHORT_SECONDS: Final = 0.2
"""Time from a change of a Job, a pod or a status to the pass over its run."""
NEW_JOB_SECONDS: Final = 1.0
"""The same for a Job that appears: a pass has created it, and its pods follow in a moment."""
OWN_WRITE_SECONDS: Final = 10.0
"""The same for a status that this process is known to have written."""

Add = Callable[[RunKey, float], None]
"""Makes a run due after so many seconds."""
log = logging.getLogger(__name__)


class CacheFiller(Receiver):
    """Keeps what is listed and watched in the cache, and makes runs due."""

    def __init__(self, cache: ObjectCache, add: Add, deleted: Callable[[Object], None]) -> None:
        self._cache, self._add, self._deleted = cache, add, deleted
        self._recording: set[asyncio.Task[None]] = set()

    @override
    def page(self, kind: str, namespace: str, page: Page) -> None:
        """Keep listed objects; when all lists are complete, make every run due that goes on."""
        if page.first:
            self._cache.begin_list(kind, namespace)
        for raw in page.objects:
            try:
                self._cache.put(kind, namespace, watched_object(kind, raw))
            except Exception as error:  # whatever one object is, the others are listed
                if not isinstance(error, UNREADABLE):
                    log.exception("an unexpected error while a listed object was read")
                self.missed(kind, namespace)
        if page.last_version is None:
            return
        self._cache.end_list(kind, namespace, version_number(page.last_version))
        if self._cache.is_listed(namespace):
            for key in self._cache.unsettled(namespace):
                self._add(key, 0.0)

    @override
    def opened(self, kind: str, namespace: str) -> None:
        self._cache.opened(kind, namespace)

    @override
    def event(self, kind: str, namespace: str, change: str, raw: Raw, version: str) -> None:
        if change in ("ADDED", "MODIFIED", "DELETED"):
            item = watched_object(kind, raw)
            before = None
            if change == "DELETED":
                self._remove(kind, namespace, item)
            else:
                before = self._cache.put(kind, namespace, item)
                if kind == names.KIND and item.settled and (before is None or before.settled):
                    item = item._replace(run_name="")  # nothing has to be done
            delay = self._delay(kind, namespace, item, before)
            self._cache.advance(kind, namespace, version_number(version))
            if item.run_name:
                self._add(RunKey(namespace, item.run_name), delay)
        else:
            self._cache.advance(kind, namespace, version_number(version))

    def _delay(
        self, kind: str, namespace: str, item: WatchedObject, before: WatchedObject | None
    ) -> float:
        """Return how soon a pass has to follow from a change.

        A new run, a change of its spec, its deletion and its end have no delay, nor has the end of
        a pod: somebody waits for the result.
        """
        if kind == "Pod" and item.settled and before is not None and not before.settled:
            return 0.0
        if kind != names.KIND:
            new_job = kind == "Job" and before is None
            return NEW_JOB_SECONDS if new_job else SHORT_SECONDS
        if before is None or before.generation != item.generation or item.settled:
            return 0.0
        return OWN_WRITE_SECONDS if self._cache.is_own_write(namespace, item) else SHORT_SECONDS

    @override
    def missed(self, kind: str, namespace: str) -> None:
        """Trust the cache no longer; a run that it lacks is read, and found by the next resync."""
        if kind != names.KIND:
            self._cache.distrust(kind, namespace)

    def _remove(self, kind: str, namespace: str, item: WatchedObject) -> None:
        self._cache.remove(kind, namespace, item.name)
        if kind == names.KIND:
            metadata = {"name": item.name, "namespace": namespace, "uid": item.uid}
            task = asyncio.create_task(call_storage(self._deleted, {"metadata": metadata}))
            self._recording.add(task)
            task.add_done_callback(self._recording.discard)
