"""Data for the users of a served namespace, so that the command line needs only a kubeconfig.

The ConfigMap ``flashrun-public`` holds models, pools and the address of storage. The Secret
``flashrun-storage-user`` holds S3 credentials that can read the runs of the namespace and push
environments of its orgs. The Secret ``flashrun-upstreams`` is for trainer pods alone
(``flashrun.controller.upstreams``).
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Set
from datetime import UTC, datetime
from typing import Final, NamedTuple

import flashrun
from flashrun.api import names
from flashrun.api.environment_owners import owned_orgs
from flashrun.api.platform import Platform, Pool
from flashrun.api.pod import ENDED_PHASES
from flashrun.api.public import FILE, PublicPlatform
from flashrun.api.quantities import whole_units
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError
from flashrun.controller.mirror_reader import MirrorContent, MirrorReader
from flashrun.controller.settings import SettingsError
from flashrun.controller.storage_access import AccessIssuer
from flashrun.controller.storage_threads import call_storage
from flashrun.controller.upstreams import Upstreams
from flashrun.plan import storage_policies
from flashrun.plan.credentials import access_secret, are_due, expiry_of
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.types import AccessGrant, Object
from flashrun.store_errors import StoreError

EVERY_SECONDS: Final = 60.0
_LABELS: Final = {names.MANAGED_BY_LABEL: "flashrun", names.NAME_LABEL: "flashrun"}

log = logging.getLogger(__name__)


class SecretKey(NamedTuple):
    """Where a Secret with storage credentials is."""

    namespace: str
    name: str


async def publish(
    cluster: Cluster,
    issuer: AccessIssuer,
    platform: Platform,
    upstreams: Upstreams,
    mirror: MirrorReader,
    namespaces: Callable[[], Iterable[str]],
    storage_problem: Callable[[], str],
) -> None:
    """Publish for ever in ``namespaces``, soon in one that comes.

    A failure in one namespace does not affect the others. ``storage_problem`` returns what storage
    lacks that runs need.
    """
    content: MirrorContent | None = None
    while True:
        try:
            content = await call_storage(mirror.read_all)
        except StoreError as error:
            log.warning("the models of the mirror are published as last seen: %s", error)
        described = await describe_platform(cluster, platform, datetime.now(UTC), content)
        public = described.replace(storage_problem=storage_problem())
        published = frozenset(namespaces())
        for namespace in sorted(published):
            if namespace not in namespaces():
                continue  # it has gone meanwhile
            await _try(namespace, upstreams.publish_in(cluster, namespace, _LABELS))
            await _try(namespace, publish_in(cluster, issuer, platform, namespace, public))
        await _try(cluster.namespace, publish_mirror(cluster, issuer, platform))
        await _wait_for_more(namespaces, published)


async def _wait_for_more(namespaces: Callable[[], Iterable[str]], published: Set[str]) -> None:
    """Wait until it is time to publish again, or one of ``namespaces`` is new."""
    end = time.monotonic() + EVERY_SECONDS
    # Another task asks the cluster, and any thread may read what it has found.
    while time.monotonic() < end and published >= (now := frozenset(namespaces())):
        published = now  # of one that has left, what was published is deleted
        await asyncio.sleep(min(1.0, EVERY_SECONDS))


async def _try(namespace: str, work: Awaitable[None]) -> None:
    try:
        await work
    except (ClusterError, StoreError, SettingsError) as error:
        log.warning("publishing in namespace %s failed: %s", namespace, error)


async def publish_in(
    cluster: Cluster,
    issuer: AccessIssuer,
    platform: Platform,
    namespace: str,
    public: PublicPlatform,
) -> None:
    """Write the ConfigMap and the Secret of one namespace.

    Raises:
        ClusterError: one of them cannot be written.
        StoreError: storage issues no credentials.
        SettingsError: too many orgs are bound to the namespace for one policy.
    """
    orgs = owned_orgs(namespace, platform.environments.owners)
    await cluster.apply(_config_map(namespace, public.replace(environment_orgs=orgs)))
    storage = platform.storage
    try:
        policy = storage_policies.namespace_policy(
            *(storage.bucket_arn, namespace, orgs, storage.policy_key),
            weights=platform.mirror_readable,
        )
    except ValueError as error:
        raise SettingsError(f"environments.owners: {error}") from None
    secret = SecretKey(namespace, names.STORAGE_USER_SECRET)
    await _renew_credentials(cluster, issuer, platform, secret, policy)


async def publish_mirror(cluster: Cluster, issuer: AccessIssuer, platform: Platform) -> None:
    """Write the Secret of those who manage the model mirror, in the operator's own namespace.

    Raises:
        ClusterError: it cannot be written.
        StoreError: storage issues no credentials.
    """
    policy = storage_policies.mirror_policy(platform.storage.bucket_arn)
    secret = SecretKey(cluster.namespace, names.STORAGE_MODELS_SECRET)
    await _renew_credentials(cluster, issuer, platform, secret, policy)


async def describe_platform(
    cluster: Cluster, platform: Platform, now: datetime, mirror: MirrorContent | None = None
) -> PublicPlatform:
    """Return the public part of the platform.

    Pools have numbers of GPUs when the operator may read nodes and pods.
    """
    public = PublicPlatform.of(
        platform,
        version=flashrun.__version__,
        updated=now,
        models_namespace=cluster.namespace,
        mirrored=mirror.models if mirror else (),
        refused_models=mirror.refused if mirror else {},
    )
    try:
        nodes = await cluster.list("Node")
        resources = frozenset(pool.resource for pool in platform.pools)
        pods = [
            shortened(pod, resources)
            async for pod in cluster.each("Pod")
            if holds_any(pod, resources)
        ]
    except ClusterError:
        return public
    counts = (count_gpus(pool, nodes, pods) for pool in platform.pools)
    counted = tuple(
        pool.replace(total=total, free=free)
        for pool, (total, free) in zip(public.pools, counts, strict=True)
    )
    return public.replace(pools=counted)


def count_gpus(pool: Pool, nodes: Iterable[Object], pods: Iterable[Object]) -> tuple[int, int]:
    """Return how many GPUs a pool has, and how many of them no pod has requested."""
    total = {
        node["metadata"]["name"]: whole_units(
            _amounts(node.get("status"), "allocatable").get(pool.resource, 0)
        )
        for node in nodes
        if _usable(node)
        and pool.node_selector.items() <= (node["metadata"].get("labels") or {}).items()
    }
    requested: Counter[str] = Counter()
    for pod in pods:
        node = pod["spec"].get("nodeName", "")
        if node in total and (pod.get("status") or {}).get("phase") not in ENDED_PHASES:
            requested[node] += _requested(pod, pool.resource)
    free = sum(max(0, gpus - requested[node]) for node, gpus in total.items())
    return sum(total.values()), free


def holds_any(pod: Object, resources: Set[str]) -> bool:
    """Return whether a pod counts: most of a cluster's pods have no GPU, or none any more."""
    if (pod.get("status") or {}).get("phase") in ENDED_PHASES or not pod["spec"].get("nodeName"):
        return False
    return any(
        not resources.isdisjoint(_amounts(container.get("resources"), "limits"))
        for container in pod["spec"]["containers"]
    )


def shortened(pod: Object, resources: Set[str]) -> Object:
    """Return what ``count_gpus`` needs of a pod: those of the whole cluster are in memory."""
    containers = []
    for container in pod["spec"]["containers"]:
        limits = _amounts(container.get("resources"), "limits")
        if kept := {name: amount for name, amount in limits.items() if name in resources}:
            containers.append({"resources": {"limits": kept}})
    spec = {"nodeName": pod["spec"].get("nodeName", ""), "containers": containers}
    return {"spec": spec, "status": {"phase": (pod.get("status") or {}).get("phase")}}


def _usable(node: Object) -> bool:
    return find_condition(node, "Ready") is not None and not node["spec"].get("unschedulable")


def _requested(pod: Object, resource: str) -> int:
    return sum(
        whole_units(_amounts(container.get("resources"), "limits").get(resource, 0))
        for container in pod["spec"]["containers"]
    )


def _amounts(owner: Object | None, key: str) -> Object:
    return (owner or {}).get(key) or {}


def _config_map(namespace: str, public: PublicPlatform) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.PUBLIC_CONFIG_MAP, "namespace": namespace, "labels": _LABELS},
        "data": {FILE: public.model_dump_json(by_alias=True, exclude_none=True)},
    }


async def _renew_credentials(
    cluster: Cluster,
    issuer: AccessIssuer,
    platform: Platform,
    secret: SecretKey,
    policy: storage_policies.Policy,
) -> None:
    """Renew the credentials in a Secret after half of their lifetime, or for another policy."""
    seconds, now = platform.storage.credentials_seconds, datetime.now(UTC)
    digest = hashlib.sha256(json.dumps(policy).encode()).hexdigest()[:16]
    existing = await cluster.metadata("Secret", secret.namespace, secret.name)
    if existing is not None and not are_due(expiry_of(existing), seconds, now):
        annotations = existing.get("annotations") or {}
        if annotations.get(names.POLICY_ANNOTATION) == digest:
            return
    metadata: Object = {
        "name": secret.name,
        "namespace": secret.namespace,
        "labels": _LABELS,
        "annotations": {names.POLICY_ANNOTATION: digest},
    }
    grant = AccessGrant(metadata, policy, seconds)
    access = await call_storage(issuer.issue, grant)
    await cluster.put_secret(*access_secret(metadata, access))
