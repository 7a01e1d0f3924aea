"""The runs of each sweep, read once for all of them, and the runs that this process has started."""

import time
from collections.abc import Callable
from typing import Final

from flashrun.api import names
from flashrun.api.resource import FlashRun
from flashrun.api.sweep import MEMBERS_LIMIT
from flashrun.cluster import Cluster
from flashrun.plan.sweep_members import Standing, SweepMember, read_member
from flashrun.plan.types import Object, SweepView

FRESH_SECONDS: Final = 2.0
"""How long a list of a sweep's runs is used."""
LAUNCHED_SECONDS: Final = 60.0
"""How long a run counts as started when its status does not show it: its Job may be refused."""
SWEEPS_LIMIT: Final = 1_000
"""After so many sweeps, those that were read long ago are forgotten."""
_FIELD: Final = "spec.sweep.name"

_Sweep = tuple[str, str]
"""Namespace and name of a sweep."""


class SweepPlaces:
    """Reads the runs of sweeps; all calls are made in one event loop."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._clock = cluster, clock
        self._read: dict[_Sweep, tuple[float, tuple[SweepMember, ...]]] = {}
        self._launched: dict[_Sweep, dict[str, float]] = {}

    async def view(self, run: FlashRun) -> SweepView | None:
        """Return the runs of the sweep of ``run`` if a decision about it needs them.

        A caller that decides before it waits for anything else, and notes what it starts, never
        starts more runs than may run.

        Raises:
            ClusterError: the API server did not answer, or refused.
        """
        sweep = run.spec.sweep
        begun = run.status.resolved is not None and run.status.resolved.environment_digest
        if sweep is None or (begun and sweep.stop_worse is None):
            return None
        key = (run.namespace, sweep.name)
        read_at, members = self._read.get(key, (float("-inf"), ()))
        if self._clock() - read_at >= FRESH_SECONDS:
            read_at = self._clock()
            found = await self._cluster.newest(
                names.KIND, run.namespace, {}, MEMBERS_LIMIT, _creation, {_FIELD: sweep.name}
            )
            members = tuple(map(read_member, found))
            self._forget_old()
            self._read[key] = (read_at, members)
        return SweepView(members, self._just_launched(key, members))

    def note_launch(self, run: FlashRun) -> None:
        """Note that the first Job of ``run`` is about to be created."""
        if run.spec.sweep is not None:
            launched = self._launched.setdefault((run.namespace, run.spec.sweep.name), {})
            launched[run.uid] = self._clock()

    def _just_launched(self, key: _Sweep, members: tuple[SweepMember, ...]) -> frozenset[str]:
        """Return the runs that were started here, and of which ``members`` do not show it yet."""
        launched, now = self._launched.get(key, {}), self._clock()
        shown = {member.uid for member in members if member.standing > Standing.WAITS_ELSEWHERE}
        for uid in [uid for uid, at in launched.items() if now - at > LAUNCHED_SECONDS]:
            del launched[uid]
        return frozenset(launched.keys() - shown)

    def _forget_old(self) -> None:
        if len(self._read) < SWEEPS_LIMIT:
            return
        now = self._clock()
        self._read = {
            key: entry for key, entry in self._read.items() if now - entry[0] < LAUNCHED_SECONDS
        }
        self._launched = {key: self._launched[key] for key in self._read if key in self._launched}


def _creation(manifest: Object) -> tuple[str, str]:
    metadata = manifest["metadata"]
    return (metadata.get("creationTimestamp") or "", metadata["name"])
