"""Starting a Job: the Job itself, and everything that its pods need."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from flashrun.api import names
from flashrun.api.reasons import AnyReason, ConditionType, Phase, Reason
from flashrun.api.records import ResolvedRun, RunIdentity, Scale
from flashrun.api.times import parse_time
from flashrun.plan import (
    back_off,
    objects,
    pins,
    resolve,
    run_status,
    storage_policies,
    wall_clock,
)
from flashrun.plan.conditions import TRUE, DesiredCondition
from flashrun.plan.credentials import are_due
from flashrun.plan.decisions import wait
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.kueue_workloads import suspend_patches
from flashrun.plan.observed_conditions import missing_values, secrets_condition
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import AccessGrant, Decision, Delete, Object, SecretCopy

AT_ONCE_SECONDS: Final = 0.5
"""Time to the next pass when one object has to be gone before the next is created."""


def start_job(
    context: RunContext,
    resolved: ResolvedRun,
    placement: objects.JobPlacement,
    reason: AnyReason,
    message: str,
    *,
    phase: Phase = Phase.STARTING,
    retire: Object | None = None,
    limits: pins.JobLimits | None = None,
) -> Decision:
    """Create the Job of ``placement`` and what its pods need; suspend the Job ``retire``.

    ``limits`` are by default those of the run.
    """
    resolved = resolved.replace(scale=placement.scale)
    limits = limits or pins.job_limits(context.run, context.platform)
    job = objects.trainer_job(context.run, placement, context.platform, resolved, limits)
    status = run_status.with_conditions(
        run_status.with_pins(
            context.status, context.run, resolved, placement, limits, context.observed.storage
        ),
        context.run,
        context.now,
        DesiredCondition(ConditionType.ACCEPTED, TRUE, Reason.ACCEPTED),
        secrets_condition(context.run, context.observed, copied=True),
        DesiredCondition(ConditionType.STORAGE_ACCESS, TRUE, Reason.ISSUED),
    )
    missing, wrong = spec_repair(context, resolved)
    if wrong and (blocked := _wait_for_removal(context)) is not None:
        return blocked
    if placement.scale.nodes > 1 and (retire is not None or not context.observed.has_peers):
        missing = (*missing, objects.peers_service(context.run, placement.number))
    return Decision(
        status=run_status.with_phase(
            status, context.run, context.now, phase=phase, reason=reason, message=message
        ),
        secrets=missing_secrets(context),
        access=access_grant(context, resolved),
        apply=() if wrong else (*missing, job),  # the next pass creates what was removed
        patch=suspend_patches(retire, context.workload_of(retire)),
        delete=wrong,
        requeue_seconds=AT_ONCE_SECONDS if wrong else None,
    )


def limits_after(
    context: RunContext, job: Object, moment: datetime | None = None
) -> pins.JobLimits:
    """Return the limits of another Job that goes on where ``job`` ends.

    They are what is left of the run's wall-clock limit and of its retries. ``job`` was of use from
    its first pod on a node until ``moment``, by default until it failed, else until now.
    """
    limits = pins.job_limits(context.run, context.platform)
    started = wall_clock.first_start(context, job)
    failed = find_condition(job, "Failed") or {}
    ended = parse_time(failed["lastTransitionTime"]) if "lastTransitionTime" in failed else None
    used = (moment or ended or context.now) - started if started else timedelta(0)
    return replace(
        limits,
        seconds_before=limits.seconds_before + max(0, int(used.total_seconds())),
        failures_before=limits.failures_before
        + back_off.counted_failures(back_off.ended_attempts(context)),
    )


def spec_repair(
    context: RunContext, resolved: ResolvedRun
) -> tuple[tuple[Object, ...], tuple[Delete, ...]]:
    """Return the ConfigMap with ``resolved`` if it is missing, and its deletion if it is wrong.

    The two never come together: a wrong one is created again when it is gone.
    """
    config_map = objects.spec_config_map(context.run, resolved)
    digest, there = pins.digest_of(pins.spec_text(resolved)), context.observed.config_map
    if there is None or there["metadata"]["name"] != config_map["metadata"]["name"]:
        return (config_map,), ()
    if objects.holds_spec(there, context.run, digest):
        return (), ()
    return (), (Delete("ConfigMap", config_map["metadata"]["name"]),)


def missing_secrets(context: RunContext) -> SecretCopy | None:
    """Return the copy of the secrets that the run lists, or None when it has been made.

    A run that names no secrets needs none. While a secret has no value, no copy is made, and pods
    wait until there is one.
    """
    if context.observed.has_secrets or not context.run.spec.names_secrets:
        return None
    if missing_values(context.run, context.observed):
        return None
    listed = (*context.run.spec.environment.secrets, names.WANDB_API_KEY)
    sources = context.observed.secrets.sources
    name = names.secrets_name(context.run.name, context.run.uid)
    return SecretCopy(
        metadata=objects.owned_metadata(context.run, name),
        sources={name: sources[name] for name in listed if name in sources},
    )


def pin_run(context: RunContext, scale: Scale) -> ResolvedRun:
    """Return the resolved run, with the digest or revision of everything that may change later."""
    run, storage = context.run, context.observed.storage
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
        eval_settings=resolve.resolve_eval(run.spec, context.train),
        prompt_date=(run.created or context.now).astimezone(UTC).date(),
    )
    return pins.with_trainer_settings(resolved, context.platform.trainer).replace(scale=scale)


def access_grant(context: RunContext, resolved: ResolvedRun) -> AccessGrant | None:
    """Grant access to storage, or renew it when half of its lifetime is over; else None."""
    seconds = context.platform.storage.credentials_seconds
    observed, run = context.observed, context.run
    ends = (observed.access_expires, run.status.storage_access_expires)
    expires = min((end for end in ends if end is not None), default=None)
    if observed.has_access and not are_due(expires, seconds, context.now):
        return None
    return AccessGrant(
        metadata=objects.owned_metadata(run, names.storage_secret_name(run.name, run.uid)),
        policy=storage_policies.run_policy(
            context.platform.storage.bucket_arn,
            context.run.storage_prefix,
            names.heartbeat_key(context.run.uid),
            _readable_prefixes(resolved),
        ),
        seconds=seconds,
        renewal=observed.has_access,
    )


def _wait_for_removal(context: RunContext) -> Decision | None:
    """Wait while a ConfigMap that somebody put in the place of the run's own is being deleted.

    A finalizer of theirs may hold it for ever.
    """
    there = context.observed.config_map
    if there is None or "deletionTimestamp" not in there["metadata"]:
        return None
    name, held = there["metadata"]["name"], there["metadata"].get("finalizers") or []
    by = f" (finalizers: {', '.join(held)})" if held else ""
    message = f"ConfigMap {name} is being deleted{by}; the run needs this name."
    return wait(context, Reason.CLUSTER_REFUSES, message, ConditionType.ACCEPTED)


def _readable_prefixes(resolved: ResolvedRun) -> tuple[str, ...]:
    """Return the prefixes that the run's trainer reads besides its own."""
    model, source = resolved.model, resolved.init_from_adapter
    return (
        names.model_prefix(model.id, model.revision),
        names.environment_prefix(resolved.environment.id),
        *((source.prefix,) if source else ()),
    )
