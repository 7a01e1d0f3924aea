"""Starting a Job: the Job itself, and everything that its pods need."""

from flashrun.api import names
from flashrun.api.reasons import AnyReason, ConditionType, Phase, Reason
from flashrun.api.records import ResolvedRun, RunIdentity, Scale
from flashrun.plan import objects, resolve, run_status, storage_policies
from flashrun.plan.conditions import TRUE, DesiredCondition
from flashrun.plan.credentials import are_due
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import AccessGrant, Decision, Object, Patch, SecretCopy


def start_job(
    context: RunContext,
    resolved: ResolvedRun,
    placement: objects.JobPlacement,
    reason: AnyReason,
    message: str,
    *,
    phase: Phase = Phase.STARTING,
    retire: Object | None = None,
) -> Decision:
    """Create the Job of ``placement`` and what its pods need; suspend the Job ``retire``."""
    number = placement.number
    job = objects.trainer_job(context.run, placement, context.platform, resolved.image)
    status = run_status.with_conditions(
        run_status.with_resolved(
            context.status, context.run, resolved, job, context.observed.storage
        ),
        context.run,
        context.now,
        DesiredCondition(ConditionType.ACCEPTED, TRUE, Reason.ACCEPTED),
        DesiredCondition(ConditionType.SECRETS_READY, TRUE, Reason.COPIED),
    )
    return Decision(
        status=run_status.with_phase(
            status, context.run, context.now, phase=phase, reason=reason, message=message
        ),
        secrets=missing_secrets(context),
        access=access_grant(context, resolved),
        apply=(*missing_objects(context, number, resolved, new_job=number > 0), job),
        patch=suspend_patch(retire, True) if retire is not None else (),
    )


def missing_objects(
    context: RunContext, number: int, resolved: ResolvedRun, *, new_job: bool = False
) -> tuple[Object, ...]:
    """Return the ConfigMap and the Service of Job ``number``, each only where it is missing."""
    missing = []
    if new_job or context.observed.resolved is None:
        missing.append(objects.spec_config_map(context.run, number, resolved))
    if resolved.scale.nodes > 1 and (new_job or not context.observed.has_peers):
        missing.append(objects.peers_service(context.run, number))
    return tuple(missing)


def missing_secrets(context: RunContext) -> SecretCopy | None:
    """Return the copy of the secrets that the run lists, or None when it has been made."""
    if context.observed.has_secrets:
        return None
    listed = (*context.run.spec.environment.secrets, names.WANDB_API_KEY)
    sources = context.observed.secrets.sources
    return SecretCopy(
        metadata=objects.owned_metadata(context.run, names.secrets_name(context.run.name)),
        sources={name: sources[name] for name in listed if name in sources},
    )


def pin_run(context: RunContext, scale: Scale) -> ResolvedRun:
    """Return the resolved run, with the digest or revision of everything that may change later."""
    run, storage, trainer = context.run, context.observed.storage, context.platform.trainer
    assert context.model is not None  # the policy admission decides without it
    assert storage.environment is not None  # the policy admission decides without it
    source = storage.adapter_source
    resolved = resolve.resolve_run(
        run.spec,
        identity=RunIdentity(namespace=run.namespace, name=run.name, uid=run.uid),
        model=context.model,
        environment_digest=storage.environment.digest,
        adapter=source.pinned if source else None,
        train=context.train,
    )
    return resolved.replace(
        scale=scale,
        image=trainer.image,
        hub_endpoint=trainer.hub_endpoint,
        pip_index_url=trainer.pip_index_url,
        upload_timeout_seconds=trainer.upload_timeout_seconds,
    )


def access_grant(context: RunContext, resolved: ResolvedRun) -> AccessGrant | None:
    """Grant access to storage, or renew it when half of its lifetime is over; else None."""
    seconds = context.platform.storage.credentials_seconds
    observed = context.observed
    if observed.has_access and not are_due(observed.access_expires, seconds, context.now):
        return None
    return AccessGrant(
        metadata=objects.owned_metadata(context.run, names.storage_secret_name(context.run.name)),
        policy=storage_policies.run_policy(
            context.platform.storage.bucket,
            context.run.storage_prefix,
            names.heartbeat_key(context.run.uid),
            _readable_prefixes(resolved),
        ),
        seconds=seconds,
    )


def suspend_patch(job: Object | None, value: bool) -> tuple[Patch, ...]:
    """Return the patch that sets ``spec.suspend`` of a Job; none where it has this value."""
    if job is None or bool(job["spec"].get("suspend")) is value:
        return ()
    return (Patch("Job", job["metadata"]["name"], {"spec": {"suspend": value}}),)


def _readable_prefixes(resolved: ResolvedRun) -> tuple[str, ...]:
    """Return the prefixes that the run's trainer reads besides its own."""
    model, source = resolved.model, resolved.init_from_adapter
    return (
        names.model_prefix(model.id, model.revision),
        names.environment_prefix(resolved.environment.id),
        *((source.prefix,) if source else ()),
    )
