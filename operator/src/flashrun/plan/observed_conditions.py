"""The conditions that follow from what a pass has observed, whatever a policy decides."""

from collections.abc import Iterator

from flashrun.api import names
from flashrun.api.reasons import ConditionType, Reason
from flashrun.api.resource import FlashRun
from flashrun.plan.conditions import FALSE, TRUE, UNKNOWN, DesiredCondition
from flashrun.plan.evaluation_status import evaluation_conditions
from flashrun.plan.pods import Pod, current_pods
from flashrun.plan.types import Observed, StorageView


def observed_conditions(
    run: FlashRun, pods: tuple[Pod, ...], observed: Observed, accepted: bool
) -> Iterator[DesiredCondition]:
    """Yield Accepted, SecretsReady, StorageAccess, Scheduled and CheckpointsSynced.

    MetricsSent is among them once something keeps metrics from Weights & Biases, ScoreKept once
    the run was evaluated before and during training. ``accepted`` is whether the run has pins that
    can be used.
    """
    yield DesiredCondition(
        ConditionType.ACCEPTED,
        TRUE if accepted else UNKNOWN,
        Reason.ACCEPTED if accepted else Reason.CHECKING,
    )
    yield secrets_condition(run, observed)
    yield DesiredCondition(
        ConditionType.STORAGE_ACCESS,
        TRUE if observed.has_access else UNKNOWN,
        Reason.ISSUED if observed.has_access else Reason.CHECKING,
    )
    yield _scheduled_condition(run, current_pods(pods))
    yield _synced_condition(observed.storage)
    yield from _metrics_conditions(run, observed)
    yield from evaluation_conditions(run, observed.storage)


def missing_values(run: FlashRun, observed: Observed) -> str:
    """Return one sentence when a secret that the run lists has no value, else an empty string."""
    if observed.has_secrets:
        return ""
    lookup, listed = observed.secrets, run.spec.environment.secrets
    missing = [name for name in listed if name not in lookup.sources]
    if not missing:
        return ""
    message = f"No value for {', '.join(missing)} in {_where_to_add(run)}."
    if lookup.absent:
        message += f" Secret {', '.join(lookup.absent)} does not exist."
    if lookup.unlabelled:
        message += (
            f" Secret {', '.join(lookup.unlabelled)} is not labelled for runs: label it "
            f'{names.SECRETS_LABEL}: "true".'
        )
    return message


def secrets_condition(run: FlashRun, observed: Observed, copied: bool = False) -> DesiredCondition:
    """Return SecretsReady; ``copied`` is whether this pass copies the values that are there."""
    if missing := missing_values(run, observed):
        return DesiredCondition(ConditionType.SECRETS_READY, FALSE, Reason.SECRET_MISSING, missing)
    begun = run.status.resolved is not None
    ready = copied or observed.has_secrets or (begun and not run.spec.names_secrets)
    return DesiredCondition(
        ConditionType.SECRETS_READY,
        TRUE if ready else UNKNOWN,
        Reason.COPIED if ready else Reason.CHECKING,
    )


def _where_to_add(run: FlashRun) -> str:
    """Return the Secrets that were searched, and what to do."""
    listed = ", ".join(ref.name for ref in run.spec.secret_refs)
    if not listed:
        return "spec.secretRefs (empty): add a Secret that has it"
    return f"the Secrets of spec.secretRefs ({listed}): add it to one of them"


def _scheduled_condition(run: FlashRun, pods: tuple[Pod, ...]) -> DesiredCondition:
    if not pods:
        known = run.status.condition(ConditionType.SCHEDULED)
        status = known.status if known else UNKNOWN
        return DesiredCondition(
            ConditionType.SCHEDULED, status, known.reason if known else Reason.NO_POD
        )
    pod_count = run.status.resolved.nodes if run.status.resolved else 1
    held = [pod for pod in pods if pod.unschedulable]
    if held:
        share = f"{len(held)} of {pod_count} pods: " if pod_count > 1 else ""
        return DesiredCondition(
            ConditionType.SCHEDULED, FALSE, Reason.UNSCHEDULABLE, share + held[0].unschedulable
        )
    nodes = [pod.node for pod in pods if pod.node]
    if len(nodes) < pod_count:
        return DesiredCondition(ConditionType.SCHEDULED, UNKNOWN, Reason.SCHEDULING)
    where = f"On node{'s' if pod_count > 1 else ''} {', '.join(nodes)}."
    return DesiredCondition(ConditionType.SCHEDULED, TRUE, Reason.SCHEDULED, where)


def _synced_condition(storage: StorageView) -> DesiredCondition:
    if storage.problem:
        return DesiredCondition(
            ConditionType.CHECKPOINTS_SYNCED, FALSE, storage.problem_reason, storage.problem
        )
    if problem := storage.too_many_files or storage.refused:
        reason = Reason.TOO_MANY_FILES if storage.too_many_files else Reason.RECORD_REFUSED
        return DesiredCondition(ConditionType.CHECKPOINTS_SYNCED, FALSE, reason, problem)
    if not storage.checkpoints:
        return DesiredCondition(ConditionType.CHECKPOINTS_SYNCED, UNKNOWN, Reason.NO_CHECKPOINT)
    newest = storage.checkpoints[-1]
    return DesiredCondition(
        ConditionType.CHECKPOINTS_SYNCED, TRUE, Reason.SYNCED, f"The newest is step {newest.step}."
    )


def _metrics_conditions(run: FlashRun, observed: Observed) -> Iterator[DesiredCondition]:
    """Yield MetricsSent; the last one stays while nothing new is known."""
    record = observed.storage.result or observed.storage.heartbeat
    known = run.status.condition(ConditionType.METRICS_SENT)
    if record is not None and record.wandb:
        yield DesiredCondition(ConditionType.METRICS_SENT, FALSE, Reason.WANDB_OFF, record.wandb)
    elif record is not None and known is not None and known.reason is Reason.WANDB_OFF:
        yield DesiredCondition(ConditionType.METRICS_SENT, TRUE, Reason.WANDB_ON)
    elif _has_wandb_names(run) and not observed.has_secrets:
        has_key = names.WANDB_API_KEY in observed.secrets.sources
        if not has_key:
            yield DesiredCondition(
                ConditionType.METRICS_SENT,
                FALSE,
                Reason.WANDB_KEY_MISSING,
                f"{names.WANDB_API_KEY} has no value in {_where_to_add(run)}.",
            )
        elif known is not None:
            yield DesiredCondition(ConditionType.METRICS_SENT, TRUE, Reason.WANDB_ON)


def _has_wandb_names(run: FlashRun) -> bool:
    return run.spec.wandb.project is not None or run.spec.wandb.run_name is not None
