"""Which namespaces shall be served: those of a list, or those that the cluster has.

A list is a setting, and the chart makes what each namespace needs. Where namespaces are followed,
by their labels or all of them, the operator makes it: the RoleBinding with its own rights first.
So its rights end where it does not serve, and the cluster shows them
(``kubectl get rolebindings -A -l flashrun.dev/served-by``).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.platform import Platform
from flashrun.api.public import FILE, PublicPlatform
from flashrun.api.reasons import TERMINAL
from flashrun.api.resource import FlashRun
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError, TooLarge
from flashrun.controller.settings import SettingsError
from flashrun.controller.status_writer import StatusWriter
from flashrun.plan.blocked_runs import no_longer_served
from flashrun.plan.types import Object

CLUSTERS_OWN: Final = "kube-"
"""How the names of namespaces begin that Kubernetes has for itself."""

log = logging.getLogger(__name__)


class NamespaceSource(Protocol):
    """Says which namespaces shall be served."""

    first: tuple[str, ...]
    """What it says before it has been asked."""
    changes: bool
    """Whether to ask it often."""

    async def wanted(self) -> tuple[str, ...]:
        """Return the namespaces that shall be served now; raises ``ClusterError``."""

    async def prepare(self, namespace: str) -> None:
        """Make what a namespace needs before runs are served there; raises ``ClusterError``."""

    async def leave(self, wanted: Iterable[str]) -> None:
        """Do what is left to do in namespaces that are served no more; raises ``ClusterError``."""


class ListedNamespaces(NamespaceSource):
    """Those of the settings, which are read again: the kubelet follows the ConfigMap."""

    changes = False

    def __init__(self, first: tuple[str, ...], read: Callable[[], Platform] | None = None) -> None:
        self.first, self._read = first, read

    async def wanted(self) -> tuple[str, ...]:
        """Return the list; the last one that was valid."""
        if self._read is not None:
            try:
                platform = await asyncio.to_thread(self._read)
            except SettingsError as error:
                log.warning("the namespaces stay as they are: %s", error)
            else:  # another way to choose them is another template, which starts another pod
                self.first = platform.namespaces or self.first
        return self.first

    async def prepare(self, namespace: str) -> None:
        """Do nothing: the chart has made everything."""

    async def leave(self, wanted: Iterable[str]) -> None:
        """Do nothing: the chart has taken the rights away."""


class FollowedNamespaces(NamespaceSource):
    """Those of the cluster with certain labels, or all but ``kube-*`` and the operator's own."""

    changes = True

    def __init__(self, cluster: Cluster, platform: Platform, objects: Iterable[Object]) -> None:
        """``objects`` are made in each namespace, in their order; the first one gives the right."""
        self.first: tuple[str, ...] = ()
        self._cluster, self._platform, self._objects = cluster, platform, tuple(objects)
        self._leaving: frozenset[str] = frozenset()
        self._refused: set[str] = set()
        """Namespaces that could not be left, which was logged."""

    async def wanted(self) -> tuple[str, ...]:
        """Return what the cluster has now."""
        selector = self._platform.namespace_selector
        conditions = selector.conditions if selector is not None else ()
        listed = self._cluster.list_metadata("Namespace", None, conditions)
        return tuple(sorted([item["name"] async for item in listed if self._is_wanted(item)]))

    async def prepare(self, namespace: str) -> None:
        """Make the objects of a namespace, or set back what somebody has changed in them."""
        for manifest in self._objects:
            metadata = {**manifest["metadata"], "namespace": namespace}
            await self._cluster.apply({**manifest, "metadata": metadata})

    async def leave(self, wanted: Iterable[str]) -> None:
        """Say in the runs of other namespaces what happens, and give the rights there back.

        It waits for one call: passes over these runs may still go on, and write their status.
        """
        bound = await self._bound()
        leaving = bound.keys() - set(wanted)
        for namespace in sorted(leaving & self._leaving):
            try:
                await self._leave(namespace, bound[namespace])
            except ClusterError as error:
                if namespace not in self._refused:  # whoever is there can keep us from leaving
                    log.warning("namespace %s cannot be left: %s", namespace, error)
                self._refused.add(namespace)
        self._leaving = frozenset(leaving)
        self._refused &= leaving

    def _is_wanted(self, metadata: Object) -> bool:
        name: str = metadata["name"]
        return name != self._cluster.namespace and not name.startswith(CLUSTERS_OWN)

    async def _bound(self) -> Mapping[str, list[str]]:
        """Return the RoleBindings that this operator has made, by namespace."""
        own = {item["metadata"]["name"] for item in self._objects if item["kind"] == "RoleBinding"}
        bound: dict[str, list[str]] = {}
        ours = f"{names.SERVED_BY_LABEL}={self._cluster.namespace}"
        async for item in self._cluster.list_metadata("RoleBinding", None, (ours,)):
            if item["name"] in own:
                bound.setdefault(item["namespace"], []).append(item["name"])
        return bound

    async def _leave(self, namespace: str, bindings: Iterable[str]) -> None:
        """Leave a namespace; the right to do so goes last."""
        async for metadata in self._cluster.list_metadata(names.KIND, namespace):
            await self._leave_run(namespace, metadata["name"])
        public = await self._cluster.find("ConfigMap", namespace, names.PUBLIC_CONFIG_MAP)
        if public is not None and self._is_ours(public):
            await self._cluster.delete("ConfigMap", namespace, names.PUBLIC_CONFIG_MAP)
        own = [item["metadata"]["name"] for item in self._objects if item["kind"] == "RoleBinding"]
        for name in sorted(bindings, key=lambda name: name == own[0]):
            await self._cluster.delete("RoleBinding", namespace, name)
        log.info("namespace %s is not served any more", namespace)

    async def _leave_run(self, namespace: str, name: str) -> None:
        try:
            manifest = await self._cluster.find(names.KIND, namespace, name)
            if manifest is None:
                return
            run = FlashRun.from_manifest(manifest)
        except (TooLarge, ValidationError):
            return  # its status says that it cannot be read
        if run.status.phase not in TERMINAL:
            status = no_longer_served(run, datetime.now(UTC))
            await StatusWriter(self._cluster, manifest, None).write(status.to_patch())

    def _is_ours(self, config_map: Object) -> bool:
        """Return whether this operator has published it: another one may serve the namespace."""
        try:
            public = PublicPlatform.read(config_map["data"][FILE])
        except (ValidationError, LookupError, TypeError):
            return False
        return public.models_namespace == self._cluster.namespace
