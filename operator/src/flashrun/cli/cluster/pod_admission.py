"""Whether the API server lets a pod of a run into the namespace, and whether its quotas have room.

The API server judges a pod that it does not create: LimitRange, ResourceQuota, Pod Security,
policies and webhooks answer in their own words. A quota that is used up now is a note, and one that
the run never fits in a problem.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from flashrun.api.config import RunConfig
from flashrun.api.platform import Platform, StorageSettings, TrainerSettings
from flashrun.api.pod import TRAINER_CONTAINER
from flashrun.api.public import PublicPlatform, PublicPool
from flashrun.api.quantities import format_quantity, parse_quantity
from flashrun.api.records import ResolvedRun, RunIdentity
from flashrun.api.resource import FlashRun, FlashRunSpec
from flashrun.cli.config.compose import ComposedConfig
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError, Forbidden, Invalid
from flashrun.plan import objects, resolve
from flashrun.plan.objects import JobPlacement
from flashrun.plan.placement import Placement
from flashrun.plan.pod_needs import pod_needs
from flashrun.plan.types import Object

_NO_DIGEST: Final = "0" * 64
_EXCEEDED: Final = "exceeded quota: "
_NO_DRY_RUN: Final = "does not support dry run"


@dataclass
class PodVerdict:
    """What the API server and the quotas of a namespace say about the pods of a run."""

    admitted: bool | None = None
    """None: nobody was asked."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def judge_pod(
    cluster: Cluster,
    namespace: str,
    composed: ComposedConfig,
    platform: PublicPlatform,
    place: Placement[PublicPool],
    name: str,
) -> PodVerdict:
    """Let the API server judge a pod of the run ``name``, which is not created."""
    verdict = PodVerdict()
    if platform.trainer is None:
        verdict.notes.append("the operator is of an earlier version: the pod was not checked")
        return verdict
    if not await cluster.may("create", "Pod", namespace):
        verdict.notes.append(f"you may not create pods in namespace {namespace}: not checked")
        return verdict
    pod = trainer_pod(namespace, composed, platform, place, name)
    spec, refused = pod["spec"], ""
    try:
        spec = (await cluster.create(pod, dry_run=True))["spec"]
        verdict.admitted = True
        verdict.notes += _changed_limits(pod["spec"], spec)
    except (Forbidden, Invalid) as error:
        refused = str(error)
    if _NO_DRY_RUN in refused:
        verdict.notes.append(f"the pod was not checked: {refused}")
    elif refused and _EXCEEDED not in refused:
        verdict.admitted = False
        verdict.problems.append(f"the run would never start: {refused}")
    try:
        quotas = await cluster.list("ResourceQuota", namespace)
    except ClusterError as error:
        verdict.notes.append(f"quota was not checked: {error}")
        verdict.notes += [f"the run would wait: {refused}"] if _EXCEEDED in refused else []
        return verdict
    _compare(
        verdict, [quota for quota in quotas if _applies(quota, refused)], spec, place, namespace
    )
    if _EXCEEDED in refused and not (verdict.problems or verdict.notes):
        verdict.notes.append(f"the run would wait: {refused}")
    return verdict


def trainer_pod(
    namespace: str,
    composed: ComposedConfig,
    platform: PublicPlatform,
    place: Placement[PublicPool],
    name: str,
) -> Object:
    """Return a pod like those that the operator's Job would create."""
    config, trainer = composed.config, platform.trainer
    assert trainer is not None  # the caller has looked
    settings = Platform(
        storage=StorageSettings(endpoint=platform.storage_endpoint or "http://storage"),
        trainer=TrainerSettings(**trainer.model_dump()),
        pools=(place.pool,),
    )
    run = FlashRun(
        name=name, namespace=namespace, uid="dry-run", spec=FlashRunSpec.from_config(config)
    )
    job = objects.trainer_job(
        run,
        JobPlacement(0, place.pool, place.scale),
        settings,
        _resolved(config, composed, run, platform),
    )
    template = job["spec"]["template"]
    metadata = {"name": job["metadata"]["name"], "namespace": namespace, **template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _resolved(
    config: RunConfig, composed: ComposedConfig, run: FlashRun, platform: PublicPlatform
) -> ResolvedRun:
    model = platform.catalog().get(config.model)
    assert model is not None  # a placement was chosen for it
    assert platform.trainer is not None
    resolved = resolve.resolve_run(
        config,
        identity=RunIdentity(namespace=run.namespace, name=run.name, uid=run.uid),
        model=model,
        environment_digest=_NO_DIGEST,
        train=composed.train,
        prompt_date=datetime.now(UTC).date(),
    )
    return resolved.replace(image=platform.trainer.image)


def _changed_limits(before: Object, after: Object) -> Iterable[str]:
    """Yield what a LimitRange adds to the trainer, which nobody asked for."""
    [ours] = [box for box in before["containers"] if box["name"] == TRAINER_CONTAINER]
    theirs = next((box for box in after["containers"] if box["name"] == TRAINER_CONTAINER), ours)
    for key, value in (theirs["resources"].get("limits") or {}).items():
        if key not in ours["resources"]["limits"]:
            yield f"a LimitRange of the namespace limits the trainer to {value} of {key}"


def _applies(quota: Object, refused: str) -> bool:
    """Return whether a quota counts the pod; that of one with scopes, only the API server knows."""
    spec = quota["spec"]
    scoped = spec.get("scopes") or spec.get("scopeSelector")
    return not scoped or f"{_EXCEEDED}{quota['metadata']['name']}," in refused


def _compare(
    verdict: PodVerdict,
    quotas: Sequence[Object],
    spec: Object,
    place: Placement[PublicPool],
    namespace: str,
) -> None:
    """Compare what all pods of the run need with each quota, resource by resource."""
    needs = {key: need * place.scale.nodes for key, need in pod_needs(spec).items()}
    for quota in quotas:
        status, name = quota.get("status") or {}, quota["metadata"]["name"]
        for key, limit in (status.get("hard") or {}).items():
            need = needs.get(key, Decimal(0))
            hard, used = (
                parse_quantity(limit),
                parse_quantity((status.get("used") or {}).get(key, 0)),
            )
            what = f"quota {name} allows {limit} {key} in namespace {namespace}"
            if need > hard:
                verdict.problems.append(
                    f"{what}, but the run needs {format_quantity(need)}: it would never start"
                )
            elif need and used + need > hard:
                verdict.notes.append(
                    f"{what}, {format_quantity(used)} are in use, and the run needs "
                    f"{format_quantity(need)}: it would wait"
                )
