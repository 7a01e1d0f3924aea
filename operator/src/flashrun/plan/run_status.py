"""Status as a value: what was seen, then what a decision concludes from it.

Status is rebuilt every pass. What storage and pods no longer show (pods are deleted in time) is
carried over from the last status; nothing else is.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from flashrun.api import names
from flashrun.api.platform import Platform
from flashrun.api.reasons import (
    NO_REASON,
    TERMINAL,
    AnyReason,
    ConditionType,
    Phase,
    Reason,
    reason_from,
)
from flashrun.api.records import Manifest, Progress, ResolvedRun
from flashrun.api.resource import (
    ATTEMPTS_SHOWN,
    CHECKPOINTS_SHOWN,
    AdapterStatus,
    AttemptStatus,
    BatchingStatus,
    CheckpointStatus,
    FlashRun,
    FlashRunStatus,
    ProgressStatus,
    ResolvedStatus,
)
from flashrun.api.times import whole_seconds
from flashrun.plan import conditions, failures, objects
from flashrun.plan.conditions import FALSE, TRUE, UNKNOWN, DesiredCondition
from flashrun.plan.pods import Attempt, Pod, attempts_of, pods_of_newest_job
from flashrun.plan.types import Decision, Object, Observed, RunEvent, StorageView

PROGRESS_EVERY: Final = timedelta(seconds=5)
"""Progress alone is written at most this often; the lossless history is in storage."""
_METRICS_SHOWN: Final = 16


def observed_status(
    run: FlashRun,
    observed: Observed,
    pods: tuple[Pod, ...],
    platform: Platform,
    now: datetime,
) -> FlashRunStatus:
    """Return what was seen of a run; phase and conditions are still those of the last pass."""
    before, storage = run.status, observed.storage
    readable = not storage.problem
    shown = tuple(map(_checkpoint(run), storage.checkpoints[::-1][:CHECKPOINTS_SHOWN]))
    status = with_attempts(before, observed, pods).replace(
        observed_generation=run.generation,
        start_time=before.start_time or _first_start(pods),
        storage=f"s3://{platform.storage.bucket}/{run.storage_prefix}",
        checkpoints=shown if readable else before.checkpoints,
        checkpoint_count=len(storage.checkpoints) if readable else before.checkpoint_count,
        adapter=_adapter(run, storage.adapter) if readable else before.adapter,
        progress=_progress(before.progress, observed, pods),
        resolved=before.resolved and _with_batching(before.resolved, storage),
        pending=None,
        failure=None,
    )
    return with_conditions(status, run, now, *_observed_conditions(before, pods, observed))


def with_attempts(
    before: FlashRunStatus, observed: Observed, pods: tuple[Pod, ...]
) -> FlashRunStatus:
    """Return ``before`` with what its pods did; a finished run's last pod ends late."""
    attempts = _attempts(before, pods, observed)
    return before.replace(
        attempts=attempts[-ATTEMPTS_SHOWN:],
        gpu_seconds=max(before.gpu_seconds, _gpu_seconds(attempts)),
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

    Transition times are judged against the conditions that the API server has: concluding twice
    in one pass (what is seen, then what follows) must not look like a transition.
    """
    stored = run.status.conditions
    fresh = conditions.with_times(stored, desired, run.generation, whole_seconds(now))
    merged = {item.type: item for item in (*status.conditions, *fresh)}
    return status.replace(conditions=tuple(merged.values()))


def with_resolved(
    status: FlashRunStatus, run: FlashRun, resolved: ResolvedRun, job: Object, storage: StorageView
) -> FlashRunStatus:
    """Return ``status`` with what was chosen, read off the spec, the Job and the trainer's word."""
    scale = objects.job_scale(job)
    pool = job["metadata"].get("annotations", {}).get(names.POOL_ANNOTATION, "")
    train = resolved.train.model_dump(mode="json", exclude_none=True)
    source = resolved.init_from_adapter
    return status.replace(
        resolved=ResolvedStatus(
            image=resolved.image,
            pool=pool,
            gpus=scale.world_size,
            nodes=scale.nodes,
            sharded=scale.sharded,
            batching=_batching(status.resolved, storage, scale.world_size),
            environment_digest=resolved.environment.digest,
            model_source=resolved.model.source,
            model_revision=resolved.model.revision,
            init_from_adapter_uid=source.uid if source else "",
            init_from_adapter_prefix=source.prefix if source else "",
            wall_clock_seconds=job["spec"].get("activeDeadlineSeconds", 0),
            retries=objects.job_retries(job),
            train={key: _text(value) for key, value in train.items()},
            ignored_keys=run.spec.keys_of_the_other_algorithm(),
        )
    )


def _with_batching(before: ResolvedStatus, storage: StorageView) -> ResolvedStatus:
    return before.replace(batching=_batching(before, storage, before.gpus))


def _batching(
    before: ResolvedStatus | None, storage: StorageView, world_size: int
) -> BatchingStatus | None:
    """Return what the trainer said, now or earlier; a Job of another scale begins anew."""
    records = (storage.result, storage.heartbeat)  # a heartbeat that was read may be an early one
    reported = next((record.batching for record in records if record and record.batching), None)
    known = (
        BatchingStatus(**reported.model_dump()) if reported else None,
        before.batching if before else None,
    )
    return next((item for item in known if item and item.world_size == world_size), None)


def coalesce(before: FlashRunStatus, decision: Decision, now: datetime) -> Decision:
    """Keep the stored progress while it is fresh, and say once what changed."""
    status, wait = decision.status, None
    if _same_but_progress(before, status) and before.progress != status.progress:
        written = before.progress.updated_time if before.progress else None
        if written is not None and timedelta(0) <= (age := now - written) < PROGRESS_EVERY:
            status = before
            wait = (PROGRESS_EVERY - age).total_seconds()
    elif _same_but_progress(before, status):
        status = before
    requeue = wait if decision.requeue_seconds is None else decision.requeue_seconds
    return replace(
        decision, status=status, requeue_seconds=requeue, events=tuple(_events(before, status))
    )


def checkpoints_text(status: FlashRunStatus) -> str:
    """Return how many checkpoints a run has, such as "1 checkpoint"."""
    count = status.checkpoint_count
    return f"{count} checkpoint{'' if count == 1 else 's'}"


def _same_but_progress(before: FlashRunStatus, after: FlashRunStatus) -> bool:
    return _without_progress(before) == _without_progress(after)


def _without_progress(status: FlashRunStatus) -> FlashRunStatus:
    return status.replace(progress=None, gpu_seconds=0)


def _events(before: FlashRunStatus, after: FlashRunStatus) -> Iterable[RunEvent]:
    """Yield what people want to know that changed between two statuses."""
    ready = after.condition(ConditionType.READY)
    reason, message = (
        (ready.reason, ready.message) if ready else (reason_from(after.phase.value), "")
    )
    if after.phase is not before.phase or (after.pending and after.pending != before.pending):
        yield RunEvent(
            reason or reason_from(after.phase), message or after.phase, warning=_needs_people(after)
        )
    elif reason is Reason.TRAINING_WARNING and ready != before.condition(ConditionType.READY):
        yield RunEvent(reason, message, warning=True)
    for checkpoint in after.checkpoints[: max(0, after.checkpoint_count - before.checkpoint_count)]:
        yield RunEvent(Reason.CHECKPOINT_UPLOADED, f"Checkpoint {checkpoint.ref} is in storage.")
    known = {attempt.pod: attempt for attempt in before.attempts}
    for attempt in after.attempts:
        was = known.get(attempt.pod)
        if attempt.end is not None and (was is None or was.end is None) and attempt.exit_code:
            what = f"Pod {attempt.pod} ended: {attempt.reason}. {attempt.message}".rstrip()
            yield RunEvent(Reason.ATTEMPT_ENDED, what, warning=True)


def _needs_people(status: FlashRunStatus) -> bool:
    return status.phase is Phase.FAILED or status.pending is not None


def _observed_conditions(
    before: FlashRunStatus, pods: tuple[Pod, ...], observed: Observed
) -> Iterable[DesiredCondition]:
    accepted = observed.resolved is not None
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
    yield _scheduled_condition(before, pods_of_newest_job(pods), observed.resolved)
    yield _synced_condition(observed)


def _scheduled_condition(
    before: FlashRunStatus, pods: tuple[Pod, ...], resolved: ResolvedRun | None
) -> DesiredCondition:
    if not pods:
        known = before.condition(ConditionType.SCHEDULED)
        status = known.status if known else UNKNOWN
        return DesiredCondition(
            ConditionType.SCHEDULED, status, known.reason if known else Reason.NO_POD
        )
    wanted = resolved.scale.nodes if resolved else 1
    held = [pod for pod in pods if pod.unschedulable]
    if held:
        share = f"{len(held)} of {wanted} pods: " if wanted > 1 else ""
        return DesiredCondition(
            ConditionType.SCHEDULED, FALSE, Reason.UNSCHEDULABLE, share + held[0].unschedulable
        )
    nodes = [pod.node for pod in pods if pod.node]
    if len(nodes) < wanted:
        return DesiredCondition(ConditionType.SCHEDULED, UNKNOWN, Reason.SCHEDULING)
    where = f"On node{'s' if wanted > 1 else ''} {', '.join(nodes)}."
    return DesiredCondition(ConditionType.SCHEDULED, TRUE, Reason.SCHEDULED, where)


def _synced_condition(observed: Observed) -> DesiredCondition:
    storage = observed.storage
    if storage.problem:
        return DesiredCondition(
            ConditionType.CHECKPOINTS_SYNCED, FALSE, Reason.STORAGE_UNAVAILABLE, storage.problem
        )
    if not storage.checkpoints:
        return DesiredCondition(ConditionType.CHECKPOINTS_SYNCED, UNKNOWN, Reason.NO_CHECKPOINT)
    newest = storage.checkpoints[-1]
    return DesiredCondition(
        ConditionType.CHECKPOINTS_SYNCED, TRUE, Reason.SYNCED, f"The newest is step {newest.step}."
    )


def _attempts(
    before: FlashRunStatus, pods: tuple[Pod, ...], observed: Observed
) -> tuple[AttemptStatus, ...]:
    """One entry an attempt, oldest first; attempts whose pods are gone keep the entry they had."""
    scales = {objects.job_number(job): objects.job_scale(job) for job in observed.jobs}
    known = {attempt.pod: attempt for attempt in before.attempts}
    for attempt in attempts_of(pods):
        leader = attempt.leader
        if leader.index == 0:
            entry = _attempt(known.get(leader.name), attempt, observed.storage)
            scale = scales.get(leader.job)
            gpus = scale.world_size if scale else entry.gpus
            known[leader.name] = entry.replace(gpus=gpus)
    for name in known.keys() - {pod.name for pod in pods}:
        if known[name].end is None and before.phase not in TERMINAL:  # deleted between two looks
            known[name] = known[name].replace(reason=Reason.POD_LOST)
    return tuple(sorted(known.values(), key=_start_order))


def _start_order(attempt: AttemptStatus) -> tuple[str, str]:
    return (attempt.start.isoformat() if attempt.start else "~", attempt.pod)


def _attempt(before: AttemptStatus | None, attempt: Attempt, storage: StorageView) -> AttemptStatus:
    pod, first = attempt.leader, attempt.first_failure
    heartbeat, done = storage.heartbeat, not pod.active
    number = next((claim.attempt for claim in storage.claims if claim.pod == pod.name), 0)
    other = f"Pod {first.name} failed first."[:256] if first is not pod else ""
    step = (
        heartbeat.progress.step
        if heartbeat and heartbeat.progress and heartbeat.pod == pod.name
        else None
    )
    if pod.termination is not None and pod.termination.step is not None:
        step = pod.termination.step
    before = before or AttemptStatus(number=number, pod=pod.name)
    number, from_step = number or before.number, before.from_step
    if from_step is None and number:  # known once: later looks may show less
        from_step = _resumed_from(storage, number)
    return AttemptStatus(
        number=number,
        pod=pod.name,
        node=pod.node,
        gpus=before.gpus,
        start=pod.started or before.start,
        end=pod.ended or before.end if done else None,
        reason=failures.reason_of(first) if done else NO_REASON,
        exit_code=first.exit_code if done else None,
        message=other if done else "",
        from_step=from_step,
        to_step=step if done and step is not None else before.to_step,
    )


def _resumed_from(storage: StorageView, number: int) -> int:
    """Return the newest step that earlier attempts had committed."""
    earlier = (m.step or 0 for m in storage.checkpoints if (m.attempt or 0) < number)
    return max(earlier, default=0)


def _checkpoint(run: FlashRun) -> Callable[[Manifest], CheckpointStatus]:
    def shown(manifest: Manifest) -> CheckpointStatus:
        step = manifest.step or 0
        return CheckpointStatus(
            ref=names.checkpoint_ref(run.name, step),
            step=step,
            bytes=manifest.size,
            created_time=whole_seconds(manifest.created),
        )

    return shown


def _adapter(run: FlashRun, manifest: Manifest | None) -> AdapterStatus | None:
    return None if manifest is None else AdapterStatus(ref=run.name, bytes=manifest.size)


def _progress(
    before: ProgressStatus | None, observed: Observed, pods: tuple[Pod, ...]
) -> ProgressStatus | None:
    """The live record's progress, else the result's, else what was known; unchanged stays equal."""
    heartbeat, result = observed.storage.heartbeat, observed.storage.result
    activity, updated, progress = "", None, None
    if result is not None:
        progress, updated = result.progress, result.finished
    elif heartbeat is not None:
        progress, updated = heartbeat.progress, heartbeat.updated
        activity = (
            heartbeat.activity[:64] if _is_active(heartbeat.pod, pods) else _current_activity(pods)
        )
    if progress is None:
        activity = activity or _current_activity(pods)
        known = before or ProgressStatus(step=0, total_steps=0, percent=0)
        same = known.activity == activity
        return before if same else known.replace(activity=activity)
    shown = _progress_status(progress, activity, updated)
    same = before is not None and _without_times(before) == _without_times(shown)
    return before if same else shown


def _without_times(progress: ProgressStatus) -> ProgressStatus:
    return progress.replace(updated_time=None, eta_seconds=None)


def _is_active(name: str, pods: tuple[Pod, ...]) -> bool:
    """Say whether a pod is at work still; a heartbeat may be that of the attempt before."""
    return any(pod.name == name and pod.active for pod in pods)


def _current_activity(pods: tuple[Pod, ...]) -> str:
    return next((pod.activity or "" for pod in reversed(pods) if pod.active), "")


def _progress_status(progress: Progress, activity: str, updated: datetime | None) -> ProgressStatus:
    total = progress.total_steps
    metrics = sorted(progress.metrics.items())[:_METRICS_SHOWN]
    return ProgressStatus(
        step=progress.step,
        total_steps=total,
        percent=min(100, 100 * progress.step // total) if total else 0,
        eta_seconds=progress.eta_seconds,
        metrics={key: f"{value:.4g}" for key, value in metrics},
        activity=activity,
        updated_time=None if updated is None else whole_seconds(updated),
    )


def _first_start(pods: tuple[Pod, ...]) -> datetime | None:
    return min((pod.started for pod in pods if pod.started), default=None)


def _gpu_seconds(attempts: tuple[AttemptStatus, ...]) -> int:
    """GPUs times the seconds of every attempt that ended; a running one counts when it ends."""
    seconds = (
        attempt.gpus * (attempt.end - attempt.start).total_seconds()
        for attempt in attempts
        if attempt.start is not None and attempt.end is not None
    )
    return int(sum(seconds))


def _text(value: Any) -> str:
    """Write a knob as TOML would."""
    return json.dumps(value) if isinstance(value, list | bool) else str(value)
