"""Failures: the reason, the message and the retry that follow from how a pod ended."""

from dataclasses import replace

import pytest

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason, Retry
from flashrun.plan import failures
from flashrun.plan.pods import Pod, read_pod
from tests.plan import worlds
from tests.plan.worlds import make_pod

RESULT = worlds.termination("DataInvalid", "Row 7 has no completion.")

ENDED_PODS = [
    ("a termination message", {"exit_code": 72, "termination": RESULT}, "DataInvalid", Retry.NEVER),
    ("a known exit code", {"exit_code": 72}, "DataInvalid", Retry.NEVER),
    ("a preemption, whatever the exit code is",
     {"exit_code": 72, "disrupted": "PreemptionByScheduler"}, "PreemptionByScheduler",
     Retry.UNCOUNTED),
    ("more main memory than its pool has", {"exit_code": 137, "reason": "OOMKilled"},
     "HostOutOfMemory", Retry.LARGER_POOL),
    ("a process of several that the kernel ended for memory",
     {"exit_code": 137, "reason": "OOMKilled",
      "termination": worlds.termination("ProcessKilled", "Process 1 of 2 was killed.")},
     "HostOutOfMemory", Retry.LARGER_POOL),
    ("an interruption after the kernel had ended a child",
     {"exit_code": 40, "reason": "OOMKilled"}, "Interrupted", Retry.UNCOUNTED),
    ("a success after the kernel had ended a child", {"exit_code": 0, "reason": "OOMKilled"},
     "Completed", Retry.NEVER),
    ("main memory that could not be allocated", {"exit_code": 68}, "OutOfMemory",
     Retry.LARGER_POOL),
    ("more GPU memory than its GPU has", {"exit_code": 65}, "CudaOutOfMemory", Retry.LARGER_POOL),
    ("a broken GPU", {"exit_code": 66}, "GpuFault", Retry.OTHER_NODE),
    ("storage that does not answer", {"exit_code": 75}, "StorageUnavailable", Retry.COUNTED),
    ("a signal", {"exit_code": 139}, "TrainerFailed", Retry.COUNTED),
    ("an unknown exit code", {"exit_code": 3}, "TrainerFailed", Retry.COUNTED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "reason", "retry"),
    [row[1:] for row in ENDED_PODS],
    ids=[row[0] for row in ENDED_PODS],
)
def test_a_pod_that_ended_has_a_reason_and_a_retry(ending, reason, retry) -> None:
    pod = read_pod(make_pod(**ending))

    assert failures.pod_reason(pod) == reason
    assert failures.pod_retry(pod) is retry


def evicted(disrupted: str = "", **ending: object) -> Pod:
    """A pod that the kubelet ended for its use of local disk."""
    manifest = make_pod(exit_code=40, disrupted=disrupted, **ending)  # type: ignore[arg-type]
    manifest["status"] |= {"reason": "Evicted", "message": "Usage of EmptyDir exceeds 64Ki."}
    return read_pod(manifest)


def test_an_eviction_for_the_pods_own_limits_counts_whatever_the_trainer_wrote() -> None:
    pod = evicted(termination=worlds.termination("Interrupted", "Saved."))

    assert failures.pod_reason(pod) is Reason.EVICTED
    assert failures.pod_retry(pod) is Retry.COUNTED
    assert "Usage of EmptyDir exceeds 64Ki." in failures.pod_failure(pod).message


def test_an_eviction_because_of_the_node_is_free() -> None:
    pod = evicted(disrupted="TerminationByKubelet")

    assert failures.pod_retry(pod) is Retry.UNCOUNTED
    assert failures.pod_reason(pod) == "TerminationByKubelet"


def test_a_pod_that_the_kubelet_refused_is_explained_in_its_words() -> None:
    manifest = make_pod(running=False)
    manifest["status"] |= {
        "phase": "Failed",
        "reason": "UnexpectedAdmissionError",
        "message": "Allocate failed: no healthy GPU.",
    }
    failure = failures.job_failure("BackoffLimitExceeded", "limit", read_pod(manifest))

    assert failure.reason == "UnexpectedAdmissionError"
    assert failure.message == "Allocate failed: no healthy GPU."


@pytest.mark.parametrize("code", [code for code in Exit if code is not Exit.DONE])
def test_every_exit_code_has_a_sentence(code: Exit) -> None:
    failure = failures.exit_code_failure(code)

    assert failure.reason == code.reason
    assert failure.message.endswith(".")
    assert failure.exit_code == code


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "The trainer disappeared and left no message."),
        (3, "The trainer ended with exit code 3 and left no message."),
        (139, "The trainer was killed by signal 11 and left no message."),
    ],
)
def test_an_unknown_ending_is_described(code, message) -> None:
    failure = failures.exit_code_failure(code)

    assert (failure.reason, failure.message) == (Reason.TRAINER_FAILED, message)
    assert failure.hint == "See flash log."


def test_a_member_is_named_and_the_leader_is_not() -> None:
    leader = read_pod(make_pod(exit_code=72, termination=RESULT))
    member = replace(leader, name="pod-2", index=1)

    assert failures.pod_failure(leader).message == "Row 7 has no completion."
    assert failures.pod_failure(member).message == "In pod pod-2: Row 7 has no completion."


JOBS = [
    ("the wall-clock limit counts more than its last pod", "DeadlineExceeded",
     {"exit_code": 143}, Reason.WALL_CLOCK_EXCEEDED),
    ("the last pod explains it", "BackoffLimitExceeded", {"exit_code": 72}, Reason.DATA_INVALID),
    ("a pod that ended without a failure does not", "BackoffLimitExceeded", {"exit_code": 0},
     "BackoffLimitExceeded"),
    ("no pod is left", "BackoffLimitExceeded", None, "BackoffLimitExceeded"),
    ("nothing is known", "", None, Reason.JOB_FAILED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "ending", "expected"), [row[1:] for row in JOBS], ids=[row[0] for row in JOBS]
)
def test_a_failed_job_is_explained(reason, ending, expected) -> None:
    last = None if ending is None else read_pod(make_pod(**ending))

    failure = failures.job_failure(reason, "", last)

    assert failure.reason == expected
    assert failure.message
