"""Admission: a run starts when its spec can work and storage has what the spec names."""

from dataclasses import replace

from flashrun.api.environment_owners import foreign_environment, owned_orgs
from flashrun.api.names import parse_ref
from flashrun.api.reasons import TERMINAL, ConditionType, Reason
from flashrun.api.resource import FailureStatus
from flashrun.plan import placement, resolve, run_status
from flashrun.plan.conditions import FALSE, DesiredCondition
from flashrun.plan.decisions import fail_run, wait
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def refuse_invalid_spec(context: RunContext) -> Decision | None:
    """Fail a run whose spec can never work: a spec does not change."""
    if context.pinned is not None:
        return None
    spec, platform = context.run.spec, context.platform
    if context.model is None and platform.models_from_mirror and context.observed.storage.problem:
        return None  # the mirror may have the model; what waits for storage is decided next
    hosts = platform.trainer.pip_url_hosts
    check = resolve.check_config(spec, context.train, context.catalog, pip_url_hosts=hosts)
    problems: list[object] = [*context.run.refused_values(), *check.problems]
    model = context.model
    if model is not None and context.find_placement() is None:
        pools, algorithm = platform.pools, spec.algorithm
        problems.append(placement.explain_no_placement(pools, model, algorithm, context.train))
    source = context.observed.storage.adapter_source
    if source is not None:
        mismatch = resolve.adapter_mismatch(spec, source.manifest)
        problems += [] if mismatch is None else [mismatch]
    if not problems:
        return None
    failure = FailureStatus(
        reason=Reason.SPEC_INVALID,
        message="; ".join(map(str, problems)),
        hint="Change the config and submit it as a new run.",
    )
    decision = fail_run(context, failure)
    refused = DesiredCondition(ConditionType.ACCEPTED, FALSE, Reason.SPEC_INVALID, failure.message)
    return replace(
        decision,
        status=run_status.with_conditions(decision.status, context.run, context.now, refused),
    )


def wait_for_storage(context: RunContext) -> Decision | None:
    """Wait for what the spec names and the run may not use, or storage does not have yet."""
    if context.pinned is not None:
        return None
    spec, storage = context.run.spec, context.observed.storage
    namespace = context.run.namespace
    orgs = owned_orgs(namespace, context.platform.environments.owners)
    if foreign := foreign_environment(spec.environment.id, namespace, orgs):
        return wait(context, Reason.ENVIRONMENT_NOT_OWNED, foreign, ConditionType.ACCEPTED)
    if storage.problem:
        return wait(context, storage.problem_reason, storage.problem, ConditionType.ACCEPTED)
    if storage.environment is None:
        identifier = spec.environment.id
        message = (
            f"Environment {identifier} is not in storage: push it with "
            f"flash env push --name {identifier}."
        )
        return wait(context, Reason.ENVIRONMENT_NOT_FOUND, message, ConditionType.ACCEPTED)
    if spec.train.init_from_adapter is not None and storage.adapter_source is None:
        message = _missing_adapter(
            spec.train.init_from_adapter, namespace, context.observed.source_phase
        )
        return wait(context, Reason.ADAPTER_NOT_FOUND, message, ConditionType.ACCEPTED)
    return None


def _missing_adapter(ref: str, namespace: str, phase: str) -> str:
    """Return why the adapter ``ref`` is not there, whose run may be in ``phase``."""
    source = parse_ref(ref).run
    if phase in TERMINAL:
        return (
            f"Run {source} has ended ({phase}) without adapter {ref}: cancel this run, or rerun "
            f"{source} and name the new run; flash checkpoints {source} lists what there is."
        )
    missing = f"Adapter {ref} is not committed in namespace {namespace}"
    return (
        f"{missing} yet: run {source} is {phase}."
        if phase
        else f"{missing}: see flash checkpoints."
    )
