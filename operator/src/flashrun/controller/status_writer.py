"""Writes the status of one run in one pass, unless it has changed since the pass read it."""

from typing import Final

from flashrun.api import names
from flashrun.api.resource import FlashRunStatus
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Conflict, NotFound
from flashrun.controller.object_cache import ObjectCache
from flashrun.plan.types import Object

TRIES: Final = 3
"""How often a status is written while people change the rest of the run."""


class StatusWriter:
    """Remembers the version that a pass has read, and those that it has written."""

    def __init__(self, cluster: Cluster, manifest: Object, cache: ObjectCache | None) -> None:
        """Write to the run that ``manifest`` shows."""
        self._cluster, self._cache = cluster, cache
        metadata = manifest["metadata"]
        self._namespace, self._name = metadata["namespace"], metadata["name"]
        self._uid, self._version = metadata["uid"], metadata.get("resourceVersion")
        self._status: Object = manifest.get("status") or {}
        self.written: FlashRunStatus | None = None
        """The status that the pass has written, if it was a whole one."""

    async def write(self, patch: Object) -> None:
        """Merge ``patch`` into the status.

        Somebody may change labels or the ``control`` of a run meanwhile: that stays, and the status
        is written.

        Raises:
            Conflict: somebody else has written the status, or it is another run of this name.
            NotFound: the run is gone.
        """
        for remaining in reversed(range(TRIES)):
            identity = {"uid": self._uid, "resourceVersion": self._version}
            body = {"metadata": identity, "status": patch}
            try:
                metadata = await self._cluster.patch(
                    names.KIND, self._namespace, self._name, body, subresource="status"
                )
            except Conflict:
                if remaining == 0:
                    raise
                await self._read_version()
                continue
            self._version = metadata.get("resourceVersion")
            self._status = merged(self._status, patch)
            if self._cache is not None:
                self._cache.wrote(names.KIND, self._namespace, self._uid, metadata)
            return

    async def _read_version(self) -> None:
        """Read the version of the run; raises ``Conflict`` if its status is another one."""
        current = await self._cluster.find(names.KIND, self._namespace, self._name)
        if current is None:
            raise NotFound(f"run {self._name} was deleted in between")
        if current["metadata"]["uid"] != self._uid:
            raise Conflict(f"run {self._name} was deleted and created again in between")
        if (current.get("status") or {}) != self._status:
            raise Conflict(f"the status of run {self._name} was changed in between")
        self._version = current["metadata"].get("resourceVersion")


def merged(value: Object, patch: Object) -> Object:
    """Return ``value`` after a JSON merge patch (RFC 7396)."""
    result = dict(value)
    for key, new in patch.items():
        if new is None:
            result.pop(key, None)
        elif isinstance(new, dict):
            old = result.get(key)
            result[key] = merged(old if isinstance(old, dict) else {}, new)
        else:
            result[key] = new
    return result
