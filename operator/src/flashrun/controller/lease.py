"""Which replica acts: a Lease that is held only as long as it was renewed in time.

The holder stops acting before anyone else may begin: it counts from the moment it *asked* for a
renewal, others from the moment they *saw* one, and neither compares clocks between machines. A
holder that was frozen finds its time over when it wakes, and ends instead of writing late.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from flashrun.api.times import format_micro_time
from flashrun.cluster import Cluster
from flashrun.cluster_errors import AlreadyExists, ClusterError, Conflict

LEASE_SECONDS: Final = 15
"""Others take over when they have seen no renewal for so long."""
HOLD_SECONDS: Final = 10.0
"""The holder acts for so long after its last renewal."""
RETRY_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


class Lease:
    """This process's claim to be the one that acts."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._namespace, self._name = cluster, namespace, name
        self.identity = identity
        self._clock = clock
        self._renewed: float | None = None
        self._seen: tuple[Any, float] = (None, 0.0)

    @property
    def held(self) -> bool:
        """Whether this process may act now."""
        return self._renewed is not None and self._clock() - self._renewed < HOLD_SECONDS

    async def acquire(self) -> None:
        """Wait until this process holds the lease."""
        # The lease lives in the API server: there is no event to wait for.
        while not await self._try():  # noqa: ASYNC110
            await asyncio.sleep(RETRY_SECONDS)
        log.info("this replica acts now")

    async def keep(self) -> None:
        """Renew until the lease is lost, then return."""
        while self.held:
            await asyncio.sleep(RETRY_SECONDS)
            await self._try()
        log.error("the lease is lost; this replica stops")

    async def release(self) -> None:
        """Let the next replica begin at once."""
        if not self.held:
            return
        self._renewed = None
        try:
            lease = await self._cluster.get("Lease", self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self.identity:
                lease["spec"]["holderIdentity"] = ""
                await self._cluster.replace(lease)
        except ClusterError as error:
            log.warning("the lease was not released: %s", error)

    async def _try(self) -> bool:
        asked = self._clock()
        try:
            taken = await self._take()
        except (AlreadyExists, Conflict):
            return False  # another replica was faster
        except ClusterError as error:
            log.warning("the lease cannot be renewed: %s", error)
            return False
        if taken:
            self._renewed = asked
        return taken

    async def _take(self) -> bool:
        lease = await self._cluster.find("Lease", self._namespace, self._name)
        now = format_micro_time(datetime.now(UTC))
        if lease is None:
            await self._cluster.create(
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self._name, "namespace": self._namespace},
                    "spec": self._spec({}, now),
                }
            )
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder and holder != self.identity and not self._expired(spec):
            return False
        await self._cluster.replace(lease | {"spec": self._spec(spec, now)})
        return True

    def _spec(self, before: dict[str, Any], now: str) -> dict[str, Any]:
        mine = before.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": before.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (0 if mine else 1),
        }

    def _expired(self, spec: dict[str, Any]) -> bool:
        """Say whether no renewal was seen for the lease's time, by this machine's clock alone."""
        mark = (spec.get("holderIdentity"), spec.get("renewTime"))
        if self._seen[0] != mark:
            self._seen = (mark, self._clock())
            return False
        return self._clock() - self._seen[1] > (spec.get("leaseDurationSeconds") or LEASE_SECONDS)
