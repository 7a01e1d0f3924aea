"""Credentials for storage that a command reads again before they end, however long it takes.

The operator renews the Secret at half of their lifetime. Threads that transfer files take ``now``
and never wait for the API server.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Self

from flashrun.api.records import StorageAccess
from flashrun.cli.output.failure import Failure
from flashrun.cluster_errors import ClusterError

SHORTEST_PAUSE: Final = 0.5
"""Seconds between two readings of credentials that are about to end, or have ended."""


class RenewedAccess:
    """The newest credentials of one Secret."""

    def __init__(self, access: StorageAccess, read: Callable[[], Awaitable[StorageAccess]]) -> None:
        self.now = access
        self._read = read
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, read: Callable[[], Awaitable[StorageAccess]]) -> Self:
        """Read the credentials, and go on to read them until ``stop``.

        Raises:
            ClusterError, Failure: they cannot be read.
        """
        renewed = cls(await read(), read)
        if renewed.now.expires is not None:
            renewed._task = asyncio.create_task(renewed._renew())
        return renewed

    async def stop(self) -> None:
        """Leave the credentials as they are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def read_again(self) -> None:
        """Read the credentials now; while they cannot be read, those of before stay.

        The endpoint stays too: a port-forward leads to it.
        """
        with contextlib.suppress(ClusterError, Failure):
            newest = await self._read()
            before = self.now
            self.now = newest.replace(endpoint=before.endpoint, addressing=before.addressing)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(max(_seconds_left(self.now) / 2, SHORTEST_PAUSE))
            await self.read_again()


def _seconds_left(access: StorageAccess) -> float:
    if access.expires is None:
        return float("inf")
    return (access.expires - datetime.now(UTC)).total_seconds()
