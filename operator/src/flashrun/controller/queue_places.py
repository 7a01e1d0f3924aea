"""The places of Workloads in Kueue's queues, read once for all runs that wait in a queue."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError

FRESH_SECONDS: Final = 15.0
"""How long places are used; an API server that does not serve them is asked as seldom."""

log = logging.getLogger(__name__)


class QueuePlaces:
    """Reads places, which Kueue serves only where its visibility API is on."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._cluster, self._clock = cluster, clock
        self._read: dict[tuple[str, str], tuple[float, Mapping[str, int]]] = {}

    async def positions(self, namespace: str, queue: str) -> Mapping[str, int]:
        """Return the names of the Workloads that wait in a queue, with their places from 1."""
        key = (namespace, queue)
        read_at, places = self._read.get(key, (None, {}))
        if read_at is None or self._clock() - read_at >= FRESH_SECONDS:
            try:
                places = await self._cluster.queue_positions(namespace, queue)
            except ClusterError as error:
                log.debug("places in queue %s are not known: %s", queue, error)
                places = {}
            self._read[key] = (self._clock(), places)
        return places
