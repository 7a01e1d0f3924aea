"""The conditions that follow from what a pass has observed, whatever a policy decides."""

from collections.abc import Iterator

from flashrun.api.reasons import ConditionType, Reason
from flashrun.api.resource import FlashRun
from flashrun.plan.conditions import FALSE, TRUE, UNKNOWN, DesiredCondition
from flashrun.plan.pins import pinned_run
from flashrun.plan.pods import Pod, current_pods
from flashrun.plan.types import Observed, StorageView


def observed_conditions(
    run: FlashRun, pods: tuple[Pod, ...], observed: Observed
) -> Iterator[DesiredCondition]:
    """Yield Accepted, SecretsReady, Scheduled and CheckpointsSynced."""
    accepted = pinned_run(run) is not None
    yield DesiredCondition(
        ConditionType.ACCEPTED,
        TRUE if accepted else UNKNOWN,
        Reason.ACCEPTED if accepted else Reason.CHECKING,
    )
    ready = observed.has_secrets
    yield DesiredCondition(
        ConditionType.SECRETS_READY,
        TRUE if ready else UNKNOWN,
        Reason.COPIED if ready else Reason.CHECKING,
    )
    yield _scheduled_condition(run, current_pods(pods))
    yield _synced_condition(observed.storage)


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
            ConditionType.CHECKPOINTS_SYNCED, FALSE, Reason.STORAGE_UNAVAILABLE, storage.problem
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
