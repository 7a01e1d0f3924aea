"""Which objects of a run exist, remembered for a short time.

Secrets may not be watched. Between two passes that follow closely, only the operator itself changes
them, and then it knows what it wrote. What people change is seen when the time is over.
"""

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from flashrun.plan.types import Object

KEPT_BYTES: Final = 16 * 1024
"""Longest content of one object that is remembered."""


class _Known(NamedTuple):
    item: Object
    read_at: float


class OwnObjects:
    """Remembers objects that exist; one that does not exist is looked for in every pass."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, dict[str, _Known]] = {}

    async def read(
        self,
        run_uid: str,
        name: str,
        read: Callable[[], Awaitable[Object | None]],
        fresh_seconds: float,
    ) -> Object | None:
        """Return the object ``name`` of a run: as it was so long ago, or from ``read``."""
        now = self._clock()
        known = self._known.get(run_uid, {}).get(name)
        if known is not None and now - known.read_at < fresh_seconds:
            return known.item
        item = await read()
        if item is not None:
            self.note(run_uid, name, item, now)
        return item

    def note(self, run_uid: str, name: str, item: Object, read_at: float | None = None) -> None:
        """Remember an object as the operator has just written it, or as it was read."""
        if _content_bytes(item) <= KEPT_BYTES:
            moment = self._clock() if read_at is None else read_at
            self._known.setdefault(run_uid, {})[name] = _Known(item, moment)

    def forget(self, run_uid: str) -> None:
        """Forget the objects of a run: it has ended, or they are about to change."""
        self._known.pop(run_uid, None)

    def forget_all_except(self, uids: AbstractSet[str]) -> None:
        """Forget the runs that are not in ``uids``."""
        for uid in list(self._known):  # a copy: another thread may read meanwhile
            if uid not in uids:
                self.forget(uid)


def _content_bytes(item: Object) -> int:
    return sum(len(value) for value in (item.get("data") or {}).values())
