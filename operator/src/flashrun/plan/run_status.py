"""The status of a run as a value: what a pass has observed, and then what it concludes.

Status is rebuilt in every pass. Only what storage and pods no longer show is carried over from the
last status: pods are deleted after some time.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from flashrun.api import names
from flashrun.api.platform import Platform
from flashrun.api.reasons import TERMINAL, AnyReason, ConditionType, Phase
from flashrun.api.records import ResolvedRun
from flashrun.api.resource import (
    ATTEMPTS_SHOWN,
    CHECKPOINTS_SHOWN,
    AdaptedLayersStatus,
    AdapterStatus,
    BatchingStatus,
    CheckpointStatus,
    FlashRun,
    FlashRunStatus,
    ResolvedStatus,
)
from flashrun.api.times import whole_seconds
from flashrun.plan import conditions, pins
from flashrun.plan.attempt_status import attempt_statuses
from flashrun.plan.commits import CommitSummary
from flashrun.plan.conditions import FALSE, TRUE, DesiredCondition
from flashrun.plan.evaluation_status import evaluation_status, score_text
from flashrun.plan.gpu_time import newly_ended_seconds
from flashrun.plan.objects import JobPlacement
from flashrun.plan.observed_conditions import observed_conditions
from flashrun.plan.pods import Pod
from flashrun.plan.progress_status import progress_status
from flashrun.plan.sweep_status import sweep_status
from flashrun.plan.types import Decision, Observed, StorageView


def observed_status(
    run: FlashRun,
    observed: Observed,
    pods: tuple[Pod, ...],
    platform: Platform,
    now: datetime,
    accepted: bool,
) -> FlashRunStatus:
    """Return the status with everything observed in this pass, and the phase of the last one.

    ``accepted`` is whether the run has pins that can be used.
    """
    before, storage = run.status, observed.storage
    readable = not storage.problem
    checkpoints = tuple(map(_checkpoint(run), storage.checkpoints[::-1][:CHECKPOINTS_SHOWN]))
    status = with_attempts(before, observed, pods, now).replace(
        observed_generation=run.generation,
        start_time=before.start_time or _first_start(pods),
        storage=f"s3://{platform.storage.bucket}/{run.storage_prefix}",
        checkpoints=checkpoints if readable else before.checkpoints,
        checkpoint_count=len(storage.checkpoints) if readable else before.checkpoint_count,
        adapter=_adapter(run, storage.adapter) if readable else before.adapter,
        progress=progress_status(before.progress, observed, pods),
        evaluation=evaluation_status(before.evaluation, storage),
        sweep=sweep_status(run, storage),
        resolved=before.resolved and _with_reports(before.resolved, storage),
        pending=None,
        failure=None,
    )
    return with_conditions(status, run, now, *observed_conditions(run, pods, observed, accepted))


def with_attempts(
    before: FlashRunStatus, observed: Observed, pods: tuple[Pod, ...], now: datetime
) -> FlashRunStatus:
    """Return ``before`` with its attempts; the last pod of a run may end after the run has."""
    attempts = attempt_statuses(before, pods, observed, now)
    return before.replace(
        attempts=attempts[-ATTEMPTS_SHOWN:],
        gpu_seconds=before.gpu_seconds + newly_ended_seconds(before.attempts, attempts),
    )


def with_phase(
    status: FlashRunStatus,
    run: FlashRun,
    now: datetime,
    *,
    phase: Phase,
    reason: AnyReason,
    message: str,
) -> FlashRunStatus:
    """Return ``status`` with a phase and the conditions that follow from it."""
    ended = whole_seconds(now) if phase in TERMINAL else status.completion_time
    running = DesiredCondition(
        ConditionType.RUNNING, TRUE if phase is Phase.RUNNING else FALSE, reason
    )
    return with_conditions(
        status.replace(phase=phase, completion_time=ended),
        run,
        now,
        running,
        *conditions.phase_conditions(phase, reason, message),
    )


def with_conditions(
    status: FlashRunStatus, run: FlashRun, now: datetime, *desired: DesiredCondition
) -> FlashRunStatus:
    """Return ``status`` with these conditions replaced or added.

    Transition times follow from the conditions that the API server has: a condition that is set
    twice in one pass (as observed, then as concluded) has not changed twice.
    """
    stored = run.status.conditions
    fresh = conditions.with_times(stored, desired, run.generation, whole_seconds(now))
    merged = {item.type: item for item in (*status.conditions, *fresh)}
    return status.replace(conditions=tuple(merged.values()))


def with_pins(
    status: FlashRunStatus,
    run: FlashRun,
    resolved: ResolvedRun,
    placement: JobPlacement,
    limits: pins.JobLimits,
    storage: StorageView,
) -> FlashRunStatus:
    """Return ``status`` with everything that is fixed when the Job of ``placement`` is created."""
    scale, source = placement.scale, resolved.init_from_adapter
    return status.replace(
        resolved=ResolvedStatus(
            image=resolved.image,
            pool=placement.pool.name,
            gpus=scale.world_size,
            nodes=scale.nodes,
            sharded=scale.sharded,
            batching=_batching(status.resolved, storage, scale.world_size),
            adapted=_adapted(status.resolved, storage),
            environment_digest=resolved.environment.digest,
            model_source=resolved.model.source,
            model_revision=resolved.model.revision,
            prompt_date=resolved.prompt_date,
            init_from_adapter_uid=source.uid if source else "",
            init_from_adapter_prefix=source.prefix if source else "",
            wall_clock_seconds=limits.wall_clock_seconds,
            retries=limits.retries,
            seconds_before=limits.seconds_before,
            failures_before=limits.failures_before,
            renewals=limits.renewals,
            job=placement.number,
            avoid_nodes=placement.avoid_nodes,
            spec_digest=pins.digest_of(pins.spec_text(resolved)),
            hub_endpoint=resolved.hub_endpoint,
            pip_index_url=resolved.pip_index_url,
            upload_timeout_seconds=resolved.upload_timeout_seconds,
            train=pins.train_texts(resolved.train),
            eval=pins.eval_texts(resolved.eval),
            ignored_keys=run.spec.keys_of_the_other_algorithm(),
        )
    )


def with_pinned_job(run: FlashRun, uid: str) -> FlashRun:
    """Return ``run`` with the uid of a Job that was created for it, if there is one."""
    resolved = run.status.resolved
    if not uid or resolved is None:
        return run
    return run.replace(status=run.status.replace(resolved=resolved.replace(job_uid=uid)))


def with_access_expiry(decision: Decision, expires: datetime | None) -> Decision:
    """Return ``decision`` with the end of the credentials that were issued for it."""
    ends = whole_seconds(expires) if expires is not None else None
    return replace(decision, status=decision.status.replace(storage_access_expires=ends))


def _with_reports(before: ResolvedStatus, storage: StorageView) -> ResolvedStatus:
    return before.replace(
        batching=_batching(before, storage, before.gpus), adapted=_adapted(before, storage)
    )


def _adapted(before: ResolvedStatus | None, storage: StorageView) -> AdaptedLayersStatus | None:
    """Return the adapted layers that the trainer reported, now or earlier."""
    records = (storage.result, storage.heartbeat)
    reported = next((record.adapted for record in records if record and record.adapted), None)
    if reported:
        return AdaptedLayersStatus(**reported.model_dump())
    return before.adapted if before else None


def _batching(
    before: ResolvedStatus | None, storage: StorageView, world_size: int
) -> BatchingStatus | None:
    """Return the batching that the trainer reported for this world size, now or earlier."""
    records = (storage.result, storage.heartbeat)  # the heartbeat may be from before the result
    reported = next((record.batching for record in records if record and record.batching), None)
    known = (
        BatchingStatus(**reported.model_dump()) if reported else None,
        before.batching if before else None,
    )
    return next((item for item in known if item and item.world_size == world_size), None)


def checkpoints_text(status: FlashRunStatus) -> str:
    """Return how many checkpoints a run has, such as "1 checkpoint"."""
    count = status.checkpoint_count
    return f"{count} checkpoint{'' if count == 1 else 's'}"


def _checkpoint(run: FlashRun) -> Callable[[CommitSummary], CheckpointStatus]:
    def checkpoint_status(checkpoint: CommitSummary) -> CheckpointStatus:
        return CheckpointStatus(
            ref=names.checkpoint_ref(run.name, checkpoint.step),
            step=checkpoint.step,
            bytes=checkpoint.size,
            score=None if checkpoint.score is None else score_text(checkpoint.score),
            created_time=whole_seconds(checkpoint.created),
        )

    return checkpoint_status


def _adapter(run: FlashRun, adapter: CommitSummary | None) -> AdapterStatus | None:
    return None if adapter is None else AdapterStatus(ref=run.name, bytes=adapter.size)


def _first_start(pods: tuple[Pod, ...]) -> datetime | None:
    return min((pod.started for pod in pods if pod.started), default=None)
