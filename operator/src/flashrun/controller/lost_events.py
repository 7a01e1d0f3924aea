"""Finds what a watch did not show: names and versions are listed often and compared.

A watch shows every change, unless a proxy in between, the API server or this process loses one.
What is lost would be seen when the watch begins again, after minutes or never. A list of metadata
is cheap: the API server sends no content, and only names and versions are compared.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from flashrun.api import names
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError
from flashrun.controller import operator_metrics
from flashrun.controller.cache_filler import Add
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.queue import RunKey
from flashrun.controller.watched_objects import WATCHED_KINDS, version_number

CHECK_SECONDS: Final = 30.0
"""From the begin of one comparison to that of the next."""
PATIENCE_SECONDS: Final = 2.0
"""How long a watch may be behind a list."""
_LOOK_SECONDS: Final = 0.5

log = logging.getLogger(__name__)


class _Listed(NamedTuple):
    version: int
    run_name: str


class LostEvents:
    """Compares what the API server lists with what the watches have shown."""

    def __init__(
        self,
        cluster: Cluster,
        cache: ObjectCache,
        namespaces: Callable[[], tuple[str, ...]],
        add: Add,
        begin_anew: Callable[[], None],
    ) -> None:
        """``begin_anew`` lets the watches list everything again."""
        self._cluster, self._cache, self._namespaces = cluster, cache, namespaces
        self._add, self._begin_anew = add, begin_anew

    async def run(self) -> None:
        """Compare for ever."""
        pause = CHECK_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            await self.check()
            pause = max(_LOOK_SECONDS, CHECK_SECONDS - (time.monotonic() - began))

    async def check(self) -> None:
        """Compare once. Where something was not shown, the cache is not believed any more.

        The runs that it concerns are due, and the watches begin anew. Other namespaces are compared
        the next time: watches that begin anew list everything, and show nothing until then.
        """
        for namespace in self._namespaces():
            found = await asyncio.gather(
                *(
                    self._find_lost(kind, namespace)
                    for kind in WATCHED_KINDS
                    # else a list goes on, or the cache is not believed
                    if self._cache.is_complete(kind, namespace)
                )
            )
            if not (run_names := [name for lost in found for name in lost.values()]):
                continue
            operator_metrics.LOST_EVENTS.inc(len(run_names))
            for kind in WATCHED_KINDS:  # a pass that believed one of them would see half of it
                self._cache.distrust(kind, namespace)
            self._begin_anew()
            for run_name in filter(None, set(run_names)):
                self._add(RunKey(namespace, run_name), 0.0)
            return

    async def _find_lost(self, kind: str, namespace: str) -> dict[str, str]:
        """Return the objects whose change was not shown: name → name of the run."""
        try:
            lost = await self._compare(kind, namespace)
        except ClusterError as error:
            log.warning("%s cannot be compared: %s", kind, error)
            return {}
        if lost:
            log.warning(
                "a watch of %s in namespace %s has not shown %d", kind, namespace, len(lost)
            )
        return lost

    async def _compare(self, kind: str, namespace: str) -> dict[str, str]:
        before = {name: item.version for name, item in self._cache.shown(kind, namespace).items()}
        listed = await self._list(kind, namespace)
        waited = 0.0
        while lost := self._lost(kind, namespace, before, listed):
            if not self._cache.is_complete(kind, namespace):
                return {}
            if waited >= PATIENCE_SECONDS:
                break
            await asyncio.sleep(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
        return lost

    async def _list(self, kind: str, namespace: str) -> dict[str, _Listed]:
        labels = () if kind == names.KIND else (names.RUN_UID_LABEL,)
        listed = {}
        async for metadata in self._cluster.list_metadata(kind, namespace, labels):
            name = metadata["name"]
            run = (metadata.get("labels") or {}).get(names.RUN_LABEL, "")
            version = version_number(metadata.get("resourceVersion"))
            listed[name] = _Listed(version, name if kind == names.KIND else run)
        return listed

    def _lost(
        self, kind: str, namespace: str, before: Mapping[str, int], listed: Mapping[str, _Listed]
    ) -> dict[str, str]:
        """Return the objects whose change or deletion was not shown: name → name of the run."""
        shown = self._cache.shown(kind, namespace)
        changed = {
            name: item.run_name
            for name, item in listed.items()
            if (name not in shown and name not in before)
            or (name in shown and shown[name].version < item.version)
        }
        gone = {
            name: shown[name].run_name
            for name, version in before.items()
            if name not in listed and name in shown and shown[name].version == version
        }
        return changed | gone
