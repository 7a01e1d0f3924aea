"""Which of the platform's namespaces can be served now.

A namespace that was deleted, or whose RoleBinding is missing, is left out until it is there again.
It costs the others nothing: one watch that is refused would end all watches.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from flashrun.api.reasons import Reason
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError
from flashrun.controller import events, operator_metrics
from flashrun.controller.lease import NotLeading
from flashrun.controller.namespace_sources import NamespaceSource
from flashrun.controller.watched_objects import WATCHED_KINDS
from flashrun.plan.types import RunEvent

PROBE_SECONDS: Final = 30.0
UNSERVED_PROBE_SECONDS: Final = 5.0
"""Where namespaces are followed, and while one cannot be served."""

AT_ONCE: Final = 8
"""How many namespaces are asked about at a time."""

log = logging.getLogger(__name__)


class ServedNamespaces:
    """The namespaces in which the operator has its rights, and what it says about the others."""

    def __init__(
        self,
        cluster: Cluster,
        source: NamespaceSource,
        prepare_metrics: Callable[[Iterable[str]], None] = lambda added: None,
    ) -> None:
        """``prepare_metrics`` gets the namespaces that have come."""
        self._cluster, self._source, self._prepare_metrics = cluster, source, prepare_metrics
        self.wanted = source.first
        """Namespaces that shall be served; any thread may read it."""
        self.now = source.first
        """Namespaces that can be served, as of the last probe; any thread may read it."""
        self._unserved: tuple[str, ...] = ()
        self._checked = float("-inf")
        self._few = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            steady = not self._source.changes and len(self.now) == len(self.wanted)
            await asyncio.sleep(PROBE_SECONDS if steady else UNSERVED_PROBE_SECONDS)
            await self.probe()

    async def probe(self) -> None:
        """Find out which namespaces can be served; while the API server is away, nothing changes.

        Log lines, an Event and a metric report what has changed.
        """
        try:
            wanted = await self._source.wanted()
            asked = self._to_ask(wanted)
            answers = await asyncio.gather(*map(self._may_serve, asked))
        except ClusterError as error:
            log.warning("which namespaces can be served is not known: %s", error)
            return
        may = dict.fromkeys(self.now, True) | dict(zip(asked, answers, strict=True))
        self._note(wanted, tuple(name for name in wanted if may[name]))
        try:
            await self._source.leave(wanted)
        except ClusterError as error:
            log.warning("namespaces that are not served any more are not known: %s", error)
        unserved = tuple(name for name in wanted if name not in self.now)
        if unserved != self._unserved:
            self._unserved = unserved
            await self._report()

    def _to_ask(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Return the namespaces to look at: those that are not served, and all in a while."""
        if time.monotonic() - self._checked < PROBE_SECONDS - UNSERVED_PROBE_SECONDS:
            if self._source.changes:
                return tuple(name for name in wanted if name not in self.now)
        else:
            self._checked = time.monotonic()
        return wanted

    def _note(self, wanted: tuple[str, ...], served: tuple[str, ...]) -> None:
        came, went = set(wanted) - set(self.wanted), set(self.wanted) - set(wanted)
        self.wanted, self.now = wanted, served
        for namespace in wanted:
            operator_metrics.NAMESPACE_SERVED.labels(namespace).set(namespace in served)
        for namespace in went:
            with suppress(KeyError):
                operator_metrics.NAMESPACE_SERVED.remove(namespace)
        if came or went:
            self._prepare_metrics(came)
            log.info(
                "namespaces that have come: %s; that have gone: %s", sorted(came), sorted(went)
            )

    async def _may_serve(self, namespace: str) -> bool:
        async with self._few:
            try:
                await self._source.prepare(namespace)
            except ClusterError as error:  # it may be going, and costs the others nothing
                log.warning("namespace %s cannot be prepared: %s", namespace, error)
                says_nothing = error.temporary or isinstance(error, NotLeading)
                return says_nothing and namespace in self.now
            answers = (self._cluster.may("watch", kind, namespace) for kind in WATCHED_KINDS)
            return all(await asyncio.gather(*answers))

    async def _report(self) -> None:
        unserved = ", ".join(self._unserved)
        if unserved:
            reason = Reason.NAMESPACE_NOT_SERVED
            message = (
                f"The operator may not watch {', '.join(WATCHED_KINDS)} in namespace {unserved}: "
                "it was deleted, or the chart's RoleBinding is missing there. Create the namespace "
                "if it is missing, and install the chart again (helm upgrade)."
            )
            if self._source.changes:
                message = (
                    f"The operator cannot prepare namespace {unserved}: it is being deleted, or "
                    "the operator may not make a RoleBinding there. The operator's log says more."
                )
            log.warning("%s", message)
        else:
            reason, message = Reason.NAMESPACES_SERVED, "All namespaces of the platform are served."
            log.info("%s", message)
        event = RunEvent(reason, message, warning=bool(unserved))
        if own := events.own_pod(self._cluster.namespace):
            await events.post(self._cluster, own, event, datetime.now(UTC))
