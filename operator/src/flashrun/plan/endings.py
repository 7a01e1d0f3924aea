"""The record of how a run ended, from its status and back.

The operator writes one for every run that ends, before the status says so. A run whose status is
older than its end, as after the restoration of a backup, then ends again without training.
"""

from datetime import datetime

from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.records import Ending, RunIdentity
from flashrun.api.resource import FailureStatus, FlashRun, FlashRunStatus
from flashrun.plan.gpu_time import GpuTime, gpu_time
from flashrun.plan.types import Object


def ending_of(run: FlashRun, status: FlashRunStatus, now: datetime) -> Ending:
    """Return the record of a run that has ended with ``status``."""
    identity = identity_of_run(run)
    ended, failure = status.completion_time or now, status.failure
    used = gpu_time(status, ended)
    if failure is None:
        ready = status.condition(ConditionType.READY)
        return Ending(
            run=identity,
            phase=status.phase,
            reason=ready.reason if ready else Reason.COMPLETED,
            message=ready.message if ready else "",
            gpu_seconds=status.gpu_seconds,
            month_gpu_seconds=used.of_month,
            ended=ended,
        )
    return Ending(
        run=identity,
        phase=status.phase,
        reason=failure.reason,
        message=failure.message,
        hint=failure.hint,
        exit_code=failure.exit_code,
        peak_memory_bytes=failure.peak_memory_bytes,
        gpu_seconds=status.gpu_seconds,
        month_gpu_seconds=used.of_month,
        ended=ended,
    )


def identity_of(manifest: Object) -> RunIdentity:
    """Return which run an object of the API server is, also one whose spec cannot be read."""
    metadata = manifest["metadata"]
    return RunIdentity(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])


def identity_of_run(run: FlashRun) -> RunIdentity:
    """Return which run this is."""
    return RunIdentity(namespace=run.namespace, name=run.name, uid=run.uid)


def ending_of_deleted(run: RunIdentity, now: datetime, used: GpuTime) -> Ending:
    """Return the record of a run that was deleted before it ended."""
    return Ending(
        run=run,
        phase=Phase.CANCELLED,
        reason=Reason.DELETED,
        message="The run was deleted; its checkpoints are kept.",
        gpu_seconds=used.total,
        month_gpu_seconds=used.of_month,
        ended=now,
    )


def failure_of(ending: Ending) -> FailureStatus | None:
    """Return the failure that ended a failed run."""
    if ending.phase is not Phase.FAILED:
        return None
    return FailureStatus(
        reason=ending.reason,
        message=ending.message,
        hint=ending.hint,
        exit_code=ending.exit_code,
        peak_memory_bytes=ending.peak_memory_bytes,
    )
