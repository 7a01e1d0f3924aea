"""What status says of a Job in a queue of Kueue, and how such a Job is stopped and let go on."""

from dataclasses import replace
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.reasons import Phase
from flashrun.plan import kueue_workloads
from flashrun.plan.types import Decision, Object, QueuedWorkload
from tests.plan.worlds import PLATFORM, World, make_pod, make_run, running

QUEUE = "team-queue"
QUOTA = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in "
    "flavor h100, 4 more needed"
)
PREEMPTED = "Preempted to accommodate a workload (UID: a, JobUID: b) due to prioritization"
IN_A_QUEUE = PLATFORM.model_copy(
    update={"trainer": PLATFORM.trainer.model_copy(update={"queue": QUEUE})}
)


def workload(
    *conditions: tuple[str, str, str, str], active: bool | None = None, ours: bool = False,
    **status: Any,
) -> Object:  # fmt: skip
    """Kueue's Workload with conditions of (type, status, reason, message)."""
    keys = ("type", "status", "reason", "message")
    listed = [dict(zip(keys, condition, strict=True)) for condition in conditions]
    annotations = {names.SUSPENDED_ANNOTATION: "true"} if ours else {}
    return {
        "metadata": {"name": "job-flash-1", "annotations": annotations},
        "spec": {} if active is None else {"active": active},
        "status": {"conditions": listed, **status},
    }


def queued(
    there: Object | None, *, position: int | None = None, suspend: bool = True, pods: tuple = ()
) -> World:
    """A run whose Job is in a queue, with this Workload."""
    world = World(make_run(), platform=IN_A_QUEUE).settled()
    [job] = world.observed.jobs
    job = {**job, "spec": {**job["spec"], "suspend": suspend}}
    found = {} if there is None else {job["metadata"]["uid"]: QueuedWorkload(there, position)}
    return world.seeing(jobs=(job,), workloads=found, pods=pods)


SENTENCES = [
    ("no Workload yet", None, None,
     f"The Job waits for LocalQueue {QUEUE}; Kueue has not created its Workload yet."),
    ("not looked at yet", workload(), None, f"The Job waits in LocalQueue {QUEUE}."),
    ("not enough quota", workload(("QuotaReserved", "False", "Pending", QUOTA)), 3,
     f"The Job is number 3 in LocalQueue {QUEUE}: {QUOTA}"),
    ("no such queue", workload(
        ("QuotaReserved", "False", "Inadmissible", "LocalQueue team-queue doesn't exist")), None,
     f"The Job waits in LocalQueue {QUEUE}: LocalQueue team-queue doesn't exist"),
    ("preempted", workload(
        ("Evicted", "True", "Preempted", PREEMPTED), ("QuotaReserved", "False", "Pending", QUOTA)),
     1, f"Kueue stopped the run (Preempted). The Job is number 1 in LocalQueue {QUEUE}: {QUOTA}"),
    ("an admission check", workload(
        ("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue team"),
        admissionChecks=[{"name": "capacity", "state": "Pending", "message": "2 nodes come"},
                         {"name": "other", "state": "Ready", "message": "done"}]), None,
     f"LocalQueue {QUEUE} has quota for the Job, which waits for capacity: 2 nodes come."),
    ("deactivated by Kueue", workload(
        ("Evicted", "True", "DeactivatedDueToRequeuingLimitExceeded", "requeued 5 times"),
        active=False), None,
     "Workload job-flash-1 was deactivated (requeued 5 times): set its spec.active to true to "
     "queue the run again."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("there", "position", "sentence"), [r[1:] for r in SENTENCES], ids=[r[0] for r in SENTENCES]
)
def test_status_has_kueues_own_sentence(there, position, sentence: str) -> None:
    decision = queued(there, position=position).decide()
    ready = decision.status.condition("Ready")

    assert ready is not None
    assert (decision.status.phase, ready.reason) == (Phase.PENDING, "Queued")
    assert ready.message == sentence
    assert decision.status.pending is not None
    assert decision.status.pending.message == sentence
    assert decision.patch == ()  # Kueue alone lets it go on


def test_a_sentence_of_kueue_is_one_line_within_bounds() -> None:
    there = workload(("QuotaReserved", "False", "Pending", "no\nquota " * 4000))
    ready = queued(there).decide().status.condition("Ready")
    assert ready is not None
    assert "\n" not in ready.message
    assert len(ready.message) < 1200


def test_a_job_that_kueue_stops_saves_first() -> None:
    there = workload(("Evicted", "True", "Preempted", PREEMPTED))
    decision = queued(there, pods=(make_pod(),)).decide()
    ready = decision.status.condition("Ready")
    assert ready is not None
    assert (decision.status.phase, ready.reason) == (Phase.RUNNING, "Suspending")
    assert f"Preempted: {PREEMPTED}" in ready.message


def test_a_job_that_another_cluster_runs_is_named() -> None:
    world = queued(workload(("Admitted", "True", "Admitted", "")), suspend=False)
    [job] = world.observed.jobs
    job["spec"]["managedBy"] = "kueue.x-k8s.io/multikueue"
    status = world.decide().status
    assert status.pending is not None
    assert status.pending.reason == "ManagedElsewhere"
    assert "kueue.x-k8s.io/multikueue" in status.pending.message


def patches(decision: Decision) -> list[tuple[str, Object]]:
    return [(patch.kind, patch.body) for patch in decision.patch]


def activation(active: bool) -> tuple[str, Object]:
    mark = {names.SUSPENDED_ANNOTATION: None if active else "true"}
    return "Workload", {"metadata": {"annotations": mark}, "spec": {"active": active}}


def test_a_run_in_a_queue_is_suspended_by_its_workload_first() -> None:
    """Kueue lets a suspended Job go on while its Workload is admitted."""
    admitted = workload(("Admitted", "True", "Admitted", ""))
    world = queued(admitted, suspend=False, pods=(make_pod(),)).switched(suspend=True)

    assert patches(world.decide()) == [activation(False), ("Job", {"spec": {"suspend": True}})]


def test_a_run_that_goes_on_waits_in_its_queue_again() -> None:
    world = queued(workload(active=False, ours=True)).switched(suspend=True)
    assert patches(world.decide()) == []
    assert world.decide().status.phase is Phase.SUSPENDED

    resumed = world.switched(suspend=False).decide()
    assert patches(resumed) == [activation(True)]  # and not the Job: there may be no quota
    assert resumed.status.phase is Phase.PENDING


def test_a_workload_that_somebody_else_has_deactivated_stays_so() -> None:
    assert patches(queued(workload(active=False)).decide()) == []


def test_a_job_that_another_one_replaces_is_not_started_again_by_kueue() -> None:
    admitted = workload(("Admitted", "True", "Admitted", ""))
    pod = make_pod(exit_code=137, reason="OOMKilled")
    decision = queued(admitted, suspend=False, pods=(pod,)).decide()

    assert [item["kind"] for item in decision.apply if item["kind"] == "Job"] == ["Job"]
    assert patches(decision) == [activation(False), ("Job", {"spec": {"suspend": True}})]


def test_a_job_outside_a_queue_is_suspended_and_resumed_alone() -> None:
    world = running().switched(suspend=True)
    assert patches(world.decide()) == [("Job", {"spec": {"suspend": True}})]
    [job] = world.observed.jobs
    assert kueue_workloads.queue_of(job) == ""
    assert (
        kueue_workloads.other_manager({"spec": {"managedBy": "kubernetes.io/job-controller"}}) == ""
    )


STARTED = "2026-11-22T09:00:00Z"


@pytest.mark.parametrize(
    ("started", "renewed"), [(STARTED, 1), (None, 0)], ids=["kept its start", "start cleared"]
)
def test_a_job_whose_deadline_has_passed_in_its_queue_is_replaced(started, renewed: int) -> None:
    """Kueue clears the start of a Job that it stops; one that kept it would fail when admitted."""
    world = queued(workload(("QuotaReserved", "False", "Pending", QUOTA)))
    [job] = world.observed.jobs
    job = {**job, "status": {"startTime": started}}
    later = replace(world.seeing(jobs=(job,)), now=world.now).later(days=2)
    made = [item for item in later.decide().apply if item["kind"] == "Job"]
    assert len(made) == renewed


def test_credentials_are_renewed_while_a_job_waits_for_hours() -> None:
    world = queued(workload(("QuotaReserved", "False", "Pending", QUOTA)))
    assert world.decide().access is None
    assert world.later(hours=7).decide().access is not None
