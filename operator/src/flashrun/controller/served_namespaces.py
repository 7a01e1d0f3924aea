"""Which of the platform's namespaces can be served now.

A namespace that was deleted, or whose RoleBinding is missing, is left out until it is there again.
It costs the others nothing: one watch that is refused would end all watches.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from flashrun.api import names
from flashrun.api.reasons import Reason
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError
from flashrun.controller import events, operator_metrics
from flashrun.plan.types import RunEvent

WATCHED_KINDS: Final = (names.KIND, "Job", "Pod")
"""Kinds that are watched in each namespace."""
PROBE_SECONDS: Final = 30.0
UNSERVED_PROBE_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class ServedNamespaces:
    """The namespaces in which the operator has its rights, and what it says about the others."""

    def __init__(self, cluster: Cluster, namespaces: tuple[str, ...]) -> None:
        self._cluster, self._all = cluster, namespaces
        self.now = namespaces
        """Namespaces that can be served, as of the last probe; any thread may read it."""

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            complete = len(self.now) == len(self._all)
            await asyncio.sleep(PROBE_SECONDS if complete else UNSERVED_PROBE_SECONDS)
            await self.probe()

    async def probe(self) -> None:
        """Find out which namespaces can be served; while the API server is away, nothing changes.

        Log lines, an Event and a metric report what has changed.
        """
        before = self.now
        try:
            served = await asyncio.gather(*map(self._may_watch, self._all))
        except ClusterError as error:
            log.warning("which namespaces can be served is not known: %s", error)
            return
        self.now = tuple(name for name, may in zip(self._all, served, strict=True) if may)
        for namespace in self._all:
            operator_metrics.NAMESPACE_SERVED.labels(namespace).set(namespace in self.now)
        if self.now != before:
            await self._report()

    async def _may_watch(self, namespace: str) -> bool:
        answers = (self._cluster.may("watch", kind, namespace) for kind in WATCHED_KINDS)
        return all(await asyncio.gather(*answers))

    async def _report(self) -> None:
        unserved = ", ".join(name for name in self._all if name not in self.now)
        if unserved:
            reason = Reason.NAMESPACE_NOT_SERVED
            message = (
                f"The operator may not watch {', '.join(WATCHED_KINDS)} in namespace {unserved}: "
                "it was deleted, or the chart's RoleBinding is missing there. Create the namespace "
                "if it is missing, and install the chart again (helm upgrade)."
            )
            log.warning("%s", message)
        else:
            reason, message = Reason.NAMESPACES_SERVED, "All namespaces of the platform are served."
            log.info("%s", message)
        event = RunEvent(reason, message, warning=bool(unserved))
        if own := events.own_pod(self._cluster.namespace):
            await events.post(self._cluster, own, event, datetime.now(UTC))
