"""How long each pod of a run has shown no sign of life, by the operator's own clock.

A sign of life is a change that this operator received. No time that a pod, a node or the API server
wrote is compared with another clock, and nothing counts from before this operator began.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from flashrun.api.records import Heartbeat
from flashrun.plan.pods import read_pods
from flashrun.plan.types import Object


class _Sign(NamedTuple):
    mark: object
    received: float


class SilenceMeter:
    """Remembers the last sign of life of each pod; ``clock`` counts only readable seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._signs: dict[str, dict[str, _Sign]] = {}

    def measure(
        self,
        run_uid: str,
        pods: tuple[Object, ...],
        heartbeat: Heartbeat | None,
        unread_etag: str = "",
    ) -> Mapping[str, float]:
        """Return for each pod's uid the seconds since its last sign of life was received.

        ``unread_etag`` is that of a newer heartbeat that cannot be read: its change is such a sign.
        """
        now = self._clock()
        before = self._signs.get(run_uid, {})
        signs = {}
        for pod in read_pods(pods):
            own = heartbeat if heartbeat is not None and heartbeat.pod == pod.name else None
            mark = (pod.started, pod.deleted, own, unread_etag)
            known = before.get(pod.uid)
            signs[pod.uid] = known if known and known.mark == mark else _Sign(mark, now)
        self._signs[run_uid] = signs
        return {uid: now - sign.received for uid, sign in signs.items()}

    def forget(self, run_uid: str) -> None:
        """Forget a run that has ended."""
        self._signs.pop(run_uid, None)

    def forget_all_except(self, uids: AbstractSet[str]) -> None:
        """Forget the runs that are not in ``uids``."""
        for uid in list(self._signs):  # a copy: another thread may measure meanwhile
            if uid not in uids:
                self.forget(uid)
