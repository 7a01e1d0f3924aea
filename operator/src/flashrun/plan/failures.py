"""Why an attempt or a run has failed: reason, message and hint, and whether it is retried."""

from typing import Final

from flashrun.api.exits import Exit, Termination, exit_of
from flashrun.api.reasons import AnyReason, KubernetesReason, Reason, Retry, reason_from
from flashrun.api.records import Result
from flashrun.api.resource import FailureStatus
from flashrun.plan.pods import Pod

NO_RESULT: Final = FailureStatus(
    reason=Reason.RESULT_MISSING,
    message="The trainer ended with exit code 0, but left no valid result in storage.",
    hint="The environment may have ended the process, for example with sys.exit: see flash log.",
)
"""The failure of a Job that is complete but left no result or no adapter."""


def pod_retry(pod: Pod) -> Retry:
    """Return whether and how an attempt that ended because of ``pod`` is retried."""
    if pod.disrupted:
        return Retry.UNCOUNTED
    if pod.evicted:
        return Retry.COUNTED
    if pod.killed_for_memory:
        return Retry.LARGER_POOL
    code = exit_of(pod.exit_code)
    return Retry.COUNTED if code is None else code.retry


def pod_reason(pod: Pod) -> AnyReason:
    """Return the reason why ``pod`` ended."""
    if pod.evicted:
        return Reason.EVICTED  # whatever the trainer could still write
    if pod.killed_for_memory and not pod.disrupted:
        return Reason.HOST_OUT_OF_MEMORY  # a launcher knows only that its process was killed
    if pod.termination is not None:
        return pod.termination.reason
    if pod.disrupted:
        return reason_from(pod.disrupted)
    if pod.start_error:
        return reason_from(KubernetesReason.START_ERROR)
    if pod.exit_code == 0:
        return Reason.COMPLETED
    if pod.exit_code is None:
        return _reason_without_exit_code(pod)
    return exit_code_failure(pod.exit_code).reason


def _reason_without_exit_code(pod: Pod) -> AnyReason:
    if pod.foreign_failure:
        return Reason.ADDED_CONTAINER_FAILED
    return reason_from(pod.status_reason) if pod.status_reason else Reason.POD_LOST


def words_of_others(pod: Pod) -> str:
    """Return what the node says of the end of ``pod``, or of a container of another program.

    Empty when the exit code of the trainer, or of an init container of ours, is the reason.
    """
    if pod.start_error:
        return pod.start_error
    said_nothing = pod.exit_code is None or pod.evicted
    return (pod.foreign_failure or pod.status_message) if said_nothing else ""


def result_failure(result: Result) -> FailureStatus:
    """Return the failure that a trainer's result reports."""
    return _termination_failure(result.termination, result.exit_code)


def pod_failure(pod: Pod) -> FailureStatus:
    """Return the failure of a pod; the message names the pod unless it is the leader."""
    failure = _own_failure(pod)
    if pod.index == 0:
        return failure
    return failure.replace(message=f"In pod {pod.name}: {failure.message}")


def _own_failure(pod: Pod) -> FailureStatus:
    if pod.evicted:
        return FailureStatus(
            reason=Reason.EVICTED,
            message=f"The kubelet ended the pod: {pod.status_message or pod.status_reason}",
            hint="Ask the platform's administrator for a larger trainer.sharedMemory."
            if pod.overfilled_shared_memory
            else "Write less to local disk, or ask the platform's administrator for a larger limit "
            "on ephemeral storage.",
            exit_code=pod.exit_code,
        )
    if pod.killed_for_memory:
        return FailureStatus(
            reason=Reason.HOST_OUT_OF_MEMORY,
            message=f"Container {pod.container} used more main memory than its limit.",
            hint="Lower train.batch_size or train.max_length.",
            exit_code=pod.exit_code,
            peak_memory_bytes=pod.termination.peak_memory_bytes if pod.termination else None,
        )
    if pod.start_error:
        return FailureStatus(
            reason=pod_reason(pod),
            message=f"The node could not start container {pod.container}: {pod.start_error}",
            hint="Ask the platform's administrator to check the node and trainer.image.",
            exit_code=pod.exit_code,
        )
    if pod.termination is not None:
        return _termination_failure(pod.termination, pod.exit_code)
    if pod.exit_code is None and (message := pod.foreign_failure or pod.status_message):
        return FailureStatus(reason=pod_reason(pod), message=message)
    return exit_code_failure(pod.exit_code)


def job_failure(reason: str, message: str, last: Pod | None) -> FailureStatus:
    """Return the failure of a Job: that of its last pod if it has one, else the Job's own.

    ``reason`` and ``message`` are those of the Job's condition Failed.
    """
    if reason == KubernetesReason.DEADLINE_EXCEEDED:
        return FailureStatus(
            reason=Reason.WALL_CLOCK_EXCEEDED,
            message="The run reached the platform's wall-clock limit.",
            hint="Its checkpoints are kept: continue with train.init_from_adapter.",
        )
    if last is not None and (
        last.exit_code or last.termination or last.foreign_failure or last.status_reason
    ):
        return pod_failure(last)
    return FailureStatus(
        reason=reason_from(reason) if reason else Reason.JOB_FAILED,
        message=message or "The Job failed.",
    )


def exit_code_failure(exit_code: int | None) -> FailureStatus:
    """Return the failure for an exit code without a termination message."""
    known = exit_of(exit_code)
    if known is not None and known is not Exit.DONE:
        return FailureStatus(
            reason=known.reason, message=known.sentence, hint=known.hint, exit_code=exit_code
        )
    if exit_code is not None and exit_code > 128:
        end = f"was killed by signal {exit_code - 128}"
    else:
        end = "disappeared" if exit_code is None else f"ended with exit code {exit_code}"
    return FailureStatus(
        reason=Reason.TRAINER_FAILED,
        message=f"The trainer {end} and left no message.",
        hint="See flash log.",
        exit_code=exit_code,
    )


def _termination_failure(termination: Termination | None, exit_code: int | None) -> FailureStatus:
    if termination is None:
        return exit_code_failure(exit_code)
    return FailureStatus(
        reason=termination.reason,
        message=termination.message,
        hint=termination.hint,
        exit_code=exit_code,
        peak_memory_bytes=termination.peak_memory_bytes,
    )
