"""For how long the image of each pod of a run cannot be pulled, by the operator's own clock.

It counts from the first failure that this operator saw: a pod may wait long for a node before, and
the clock of the API server may be another one.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from flashrun.plan.pods import read_pods
from flashrun.plan.types import Object


class PullFailures:
    """Remembers when each pod was first seen without its image; ``clock`` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, dict[str, float]] = {}

    def measure(self, run_uid: str, pods: tuple[Object, ...]) -> Mapping[str, float]:
        """Return the seconds since the first failed pull of each pod that still has no image."""
        now, before = self._clock(), self._since.pop(run_uid, {})
        failing = [pod.uid for pod in read_pods(pods) if pod.active and pod.image_trouble]
        if failing:
            self._since[run_uid] = {uid: before.get(uid, now) for uid in failing}
        return {uid: now - since for uid, since in self._since.get(run_uid, {}).items()}

    def forget(self, run_uid: str) -> None:
        """Forget a run that has ended."""
        self._since.pop(run_uid, None)

    def forget_all_except(self, uids: AbstractSet[str]) -> None:
        """Forget the runs that are not in ``uids``."""
        for uid in list(self._since):  # a copy: another thread may measure meanwhile
            if uid not in uids:
                self.forget(uid)
