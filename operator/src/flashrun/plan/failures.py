"""Why an attempt ended, in one sentence and a hint, and what follows from it."""

from typing import Final

from flashrun.api.exits import RETRIES, Exit, Retry, Termination
from flashrun.api.records import Result
from flashrun.api.resource import FailureStatus
from flashrun.plan.pods import Pod

_MEANINGS: Final[dict[Exit, tuple[str, str, str]]] = {
    Exit.INTERRUPTED_SAVED: ("Interrupted", "The pod was asked to stop and saved its state.", ""),
    Exit.INTERRUPTED_UNSAVED: (
        "Interrupted",
        "The pod was asked to stop before it could save.",
        "",
    ),
    Exit.TERMINATED: ("Interrupted", "The pod was stopped before it could save.", ""),
    Exit.CONFIG: ("ConfigInvalid", "The trainer refused the resolved spec.", "See flash log."),
    Exit.CUDA_OUT_OF_MEMORY: (
        "CudaOutOfMemory",
        "The GPU ran out of memory.",
        "Lower train.batch_size, train.max_length or train.max_tokens.",
    ),
    Exit.GPU_FAULT: ("GpuFault", "The GPU reported a hardware fault.", "Try again."),
    Exit.NCCL: ("NcclFailure", "The GPUs lost contact with each other.", "Try again."),
    Exit.MODEL_UNAVAILABLE: (
        "ModelUnavailable",
        "The base model or the adapter to start from could not be fetched.",
        "Check model and train.init_from_adapter.",
    ),
    Exit.ENVIRONMENT: (
        "EnvironmentFailed",
        "The environment's own code failed.",
        "See flash log; mend the environment, push it and train again.",
    ),
    Exit.DIVERGED: ("Diverged", "The loss is not a number.", "Lower train.learning_rate."),
    Exit.DATA: ("DataInvalid", "The dataset cannot be used.", "See flash log."),
    Exit.TEMPORARY: (
        "StorageUnavailable",
        "Storage, hub or package index did not answer.",
        "Try again; ask the platform's administrator if it stays.",
    ),
}


NO_RESULT: Final = FailureStatus(
    reason="ResultMissing",
    message="The trainer ended as if all was well, but left no valid result in storage.",
    hint="The environment may have ended the process, as sys.exit does: see flash log.",
)
"""A Job that is complete without a result and an adapter."""


def retry_of(pod: Pod) -> Retry:
    """Return what follows an attempt that ended in ``pod``."""
    if pod.disrupted:
        return Retry.FREE
    if pod.killed_for_memory:
        return Retry.LARGER_POOL
    try:
        return RETRIES[Exit(pod.exit_code)] if pod.exit_code is not None else Retry.COUNTED
    except ValueError:
        return Retry.COUNTED


def reason_of(pod: Pod) -> str:
    """Return one CamelCase word for why the pod ended."""
    if pod.termination is not None:
        return pod.termination.reason
    if pod.disrupted:
        return pod.disrupted
    if pod.killed_for_memory:
        return "HostOutOfMemory"
    if pod.exit_code in (0, None):
        return "Completed" if pod.exit_code == 0 else "PodLost"
    return meaning(pod.exit_code).reason


def of_result(result: Result) -> FailureStatus:
    """Explain the terminal record of a failed run."""
    return _status(result.termination, result.exit_code)


def of_pod(pod: Pod) -> FailureStatus:
    """Explain a pod that failed the run; one that does not lead is named."""
    found = _of_pod(pod)
    if pod.index == 0:
        return found
    return found.replace(message=f"In pod {pod.name}: {found.message}"[:2048])


def _of_pod(pod: Pod) -> FailureStatus:
    if pod.termination is not None:
        return _status(pod.termination, pod.exit_code)
    if pod.killed_for_memory:
        return FailureStatus(
            reason="HostOutOfMemory",
            message=f"Pod {pod.name} used more main memory than its pool allows.",
            hint="Lower train.batch_size or train.max_length, or ask for a pool with more memory.",
            exit_code=pod.exit_code,
        )
    return meaning(pod.exit_code)


def of_job(reason: str, message: str, last: Pod | None) -> FailureStatus:
    """Explain a failed Job: by its last pod where that says why, else by its own condition."""
    if reason == "DeadlineExceeded":
        return FailureStatus(
            reason="WallClockExceeded",
            message="The run reached the platform's wall-clock limit.",
            hint="Its checkpoints are kept: continue with train.init_from_adapter.",
        )
    if last is not None and (last.exit_code or last.termination):
        return of_pod(last)
    return FailureStatus(reason=reason or "JobFailed", message=message or "The Job failed.")


def meaning(exit_code: int | None) -> FailureStatus:
    """Explain an exit code that came without a message."""
    try:
        reason, message, hint = (
            _MEANINGS[Exit(exit_code)] if exit_code is not None else ("", "", "")
        )
    except (ValueError, KeyError):
        reason, message, hint = "", "", ""
    if reason:
        return FailureStatus(reason=reason, message=message, hint=hint, exit_code=exit_code)
    if exit_code is not None and exit_code > 128:
        what = f"was killed by signal {exit_code - 128}"
    else:
        what = "went away" if exit_code is None else f"ended with exit code {exit_code}"
    return FailureStatus(
        reason="TrainerFailed",
        message=f"The trainer {what} without saying why.",
        hint="See flash log.",
        exit_code=exit_code,
    )


def _status(termination: Termination | None, exit_code: int | None) -> FailureStatus:
    if termination is None:
        return meaning(exit_code)
    return FailureStatus(
        reason=termination.reason,
        message=termination.message,
        hint=termination.hint,
        exit_code=exit_code,
        peak_memory_bytes=termination.peak_memory_bytes,
    )
