"""Which replica acts: the holder of a Lease that it renews in time.

The holder stops before another replica may begin. It counts from the moment when it *sent* a
renewal, others count from the moment when they *saw* one; clocks of different machines are never
compared. A holder that was frozen sees that its time is over, and ends instead of writing late. One
that cannot reach the API server rests, and goes on if nobody else has taken the lease meanwhile.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from flashrun.api.times import format_micro_time
from flashrun.cluster import Cluster
from flashrun.cluster_errors import AlreadyExists, ClusterError, Conflict
from flashrun.controller import operator_metrics

LEASE_SECONDS: Final = 7
"""Another replica takes over when it has seen no renewal for this long."""
HOLD_SECONDS: Final = 5.5
"""The holder may act for this long after its last renewal."""
RETRY_SECONDS: Final = 1.0
TRY_SECONDS: Final = 2.5
"""Longest time for one renewal, so that another one fits into the time that is held."""
NOT_RENEWED_SECONDS: Final = 120.0
"""After so long without a renewal, a restart is due: longer than most outages of an API server.

It comes once: a process that is started again waits for the API server before it takes the lease.
"""
STUCK_SECONDS: Final = 20.0
"""Each try ends in a few seconds: after so long without one, nothing tries any more."""

log = logging.getLogger(__name__)


class NotLeading(ClusterError):
    """This replica does not hold the lease: it writes nothing, because another one may act."""


class Lease:
    """The Lease, as this process sees it."""

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
        self.uid = ""
        """Uid of the Lease, from when it is held; a restored cluster has the same one."""
        self._clock = clock
        self._renewed: float | None = None
        self._tried = clock()
        self._seen: tuple[Any, float] = (None, 0.0)
        self._mine: dict[str, Any] | None = None
        """The Lease as this process has last written it."""
        self._taken = False
        """Whether another replica has held the lease after this one."""
        self._held_again = asyncio.Event()
        self._work: set[asyncio.Timeout] = set()
        """What ends when the lease is not held any more."""
        self.on_regained: list[Callable[[], None]] = []
        """Called when the lease is held again after a time in which it was not."""

    @property
    def held(self) -> bool:
        """Whether this process may act now."""
        return self._seconds_left > 0

    @property
    def _seconds_left(self) -> float:
        """For how long this process may act without another renewal."""
        if self._renewed is None:
            return 0.0
        return HOLD_SECONDS - (self._clock() - self._renewed)

    async def acquire(self) -> None:
        """Wait until this process holds the lease."""
        # The API server holds the lease; this process cannot wait for an event.
        while not await self._try_to_renew():  # noqa: ASYNC110
            await asyncio.sleep(RETRY_SECONDS)
        log.info("this replica acts now")

    def check(self) -> None:
        """Raise ``NotLeading`` unless this process may act now."""
        if not self.held:
            raise NotLeading("this replica does not hold the lease")

    def problem(self) -> str:
        """Return why the lease, which this process has taken, is not renewed; else nothing."""
        if self._renewed is None:
            return ""
        silence, age = self._clock() - self._tried, self._clock() - self._renewed
        if silence > STUCK_SECONDS:
            return f"nothing has tried to renew the lease for {silence:.0f} s"
        if age > NOT_RENEWED_SECONDS:
            return f"the lease has not been renewed for {age:.0f} s"
        return ""

    async def renew_until_taken(self) -> None:
        """Renew the lease; return when another replica has taken it.

        Whatever call to the API server hangs, work ends when the lease is not held any more. It may
        go on as soon as the lease could be renewed again.
        """
        rests, renewed = False, True
        while not self._taken:
            left = self._seconds_left
            if renewed or left <= 0:  # else another try at once: its time is short
                await asyncio.sleep(RETRY_SECONDS)
            left = self._seconds_left
            renewed = await self._try_to_renew(min(TRY_SECONDS, left) if left > 0 else TRY_SECONDS)
            if not self.held and not rests:
                log.error("the lease could not be renewed in time; this replica rests")
                rests = True
                self._end_work()
            elif self.held and rests:
                log.info("the lease is held again; this replica goes on")
                rests = False
                self._held_again.set()
                for call in self.on_regained:
                    call()
        log.error("another replica has taken the lease; this one stops")

    @asynccontextmanager
    async def while_held(self) -> AsyncIterator[None]:
        """Wait until the lease is held; end what is inside when it is not held any more.

        Raises:
            NotLeading: it is not held any more.
        """
        while not self.held:
            self._held_again.clear()
            await self._held_again.wait()
        try:
            async with asyncio.timeout(None) as limit:
                self._work.add(limit)
                try:
                    yield
                finally:
                    self._work.discard(limit)
        except TimeoutError:
            if limit.expired():
                raise NotLeading("this replica does not hold the lease any more") from None
            raise

    def _end_work(self) -> None:
        now = asyncio.get_running_loop().time()
        for limit in self._work:
            limit.reschedule(now)

    async def release(self) -> None:
        """Give up the lease, so that another replica can begin at once."""
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

    async def _try_to_renew(self, seconds: float = TRY_SECONDS) -> bool:
        """Take or renew the lease within ``seconds``; return whether this process holds it."""
        sent = self._tried = self._clock()
        try:
            async with asyncio.timeout(seconds):
                taken = await self._write_unless_held()
        except (AlreadyExists, Conflict):
            operator_metrics.LEASE_RENEWALS.labels("held").inc()
            return False  # another replica was faster
        except (ClusterError, TimeoutError) as error:
            log.warning("the lease cannot be renewed: %s", str(error) or "no answer in time")
            operator_metrics.LEASE_RENEWALS.labels("failed").inc()
            return False
        operator_metrics.LEASE_RENEWALS.labels("renewed" if taken else "held").inc()
        if taken:
            self._renewed = sent
            operator_metrics.LEASE_RENEWED.set_to_current_time()
        elif self._renewed is not None:
            self._taken = True
        return taken

    async def _write_unless_held(self) -> bool:
        """Take or renew the lease; a renewal is one call while nobody else has written it."""
        if (mine := self._mine) is not None:
            self._mine = None  # until the answer shows that it was written
            with contextlib.suppress(Conflict):
                await self._write(mine, mine["spec"])
                return True
        lease = await self._cluster.find("Lease", self._namespace, self._name)
        if lease is None:
            now = format_micro_time(datetime.now(UTC))
            created = await self._cluster.create(
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self._name, "namespace": self._namespace},
                    "spec": self._spec({}, now),
                }
            )
            self.uid = created["metadata"]["uid"]
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder != self.identity and self._renewed is not None:
            return False  # another replica has acted: what this process knows may be out of date
        if holder and holder != self.identity and not self._expired(spec):
            return False
        await self._write(lease, spec)
        return True

    async def _write(self, lease: dict[str, Any], spec: dict[str, Any]) -> None:
        now = format_micro_time(datetime.now(UTC))
        self._mine = await self._cluster.replace(lease | {"spec": self._spec(spec, now)})
        self.uid = lease["metadata"]["uid"]

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
        """Return whether the last renewal was seen too long ago, by the clock of this machine."""
        mark = (spec.get("holderIdentity"), spec.get("renewTime"))
        if self._seen[0] != mark:
            self._seen = (mark, self._clock())
            return False
        return self._clock() - self._seen[1] > (spec.get("leaseDurationSeconds") or LEASE_SECONDS)
