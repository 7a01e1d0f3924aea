"""What other programs say in Events: which objects are asked, and what status makes of it."""

from datetime import timedelta
from typing import Any

import pytest

from flashrun.api.reasons import Phase, Reason
from flashrun.plan.notices import read_notices, waiting_objects
from flashrun.plan.pods import read_pods
from flashrun.plan.types import Notice
from tests.plan import worlds
from tests.plan.worlds import NOW, Object, World, make_pod, make_run, running

QUOTA = 'pods "x" is forbidden: exceeded quota: team'


def notice(message: str, reason: str = "FailedCreate", age: float = 0, **changes: Any) -> Notice:
    """Something said ``age`` seconds ago."""
    moment = NOW - timedelta(seconds=age)
    values = {"source": "job-controller", "warning": True, "time": moment} | changes
    return Notice(reason=reason, message=message, **values)


def event(message: str = "said", **fields: Any) -> Object:
    """An Event as the API server stores it."""
    metadata = {"name": "e", "creationTimestamp": "2026-11-22T11:00:00Z"}
    return {
        "metadata": metadata,
        "reason": "FailedMount",
        "type": "Warning",
        "message": message,
    } | (fields)


def waiting(**notices: tuple[Notice, ...]) -> World:
    """A run whose Job has no pod yet; ``job`` is what was said about the Job."""
    world = World(make_run()).settled()
    [job] = world.observed.jobs
    uids = {"job": job["metadata"]["uid"]}
    return world.seeing(notices={uids.get(name, name): said for name, said in notices.items()})


def uids(world: World) -> list[str]:
    observed = world.observed
    return list(waiting_objects(world.run, observed.jobs, read_pods(observed.pods)))


def test_a_job_without_a_pod_is_asked_and_one_that_works_ended_or_is_suspended_is_not() -> None:
    world = waiting()
    [job] = world.observed.jobs
    uid = job["metadata"]["uid"]
    suspended = {**job, "spec": {**job["spec"], "suspend": True}}

    assert uids(world) == [uid]
    assert uids(running()) == []
    assert uids(world.seeing(jobs=(suspended,))) == []
    assert uids(world.seeing(jobs=(worlds.failed_job(job),))) == []
    assert uids(World(make_run())) == []
    assert uids(running().seeing(pods=(make_pod(exit_code=75),))) == [uid]


def test_a_pod_is_asked_until_a_container_of_ours_runs() -> None:
    for pod, asked in (
        (make_pod(running=False), True),
        (make_pod(unschedulable="0/3 nodes"), True),
        (make_pod(container="model"), False),
        (make_pod(), False),
    ):
        assert uids(running().seeing(pods=(pod,))) == (["pod-1-uid"] if asked else [])


def test_a_pod_that_the_api_server_refuses_is_explained_in_its_words() -> None:
    decision = waiting(job=(notice(f"Error creating: {QUOTA}"),)).decide()
    ready = decision.status.condition("Ready")

    assert ready is not None
    assert ready.message == f"The Job controller cannot create a pod: {QUOTA}"
    assert (decision.status.phase, ready.reason) == (Phase.PENDING, Reason.CLUSTER_REFUSES)
    assert ready.status == "False"
    assert decision.status.pending is not None
    assert decision.status.pending.message == ready.message


def test_a_refusal_from_before_the_newest_pod_is_over() -> None:
    ended = make_pod(exit_code=75, age=timedelta(seconds=30))
    for age, told in ((10, True), (31, False)):
        world = running().seeing(pods=(ended,))
        [job] = world.observed.jobs
        said = {job["metadata"]["uid"]: (notice(QUOTA, age=age),)}
        ready = world.seeing(notices=said).decide().status.condition("Ready")
        assert ready is not None
        assert (QUOTA in ready.message) is told
        assert "The last attempt ended: StorageUnavailable." in ready.message


def test_what_the_autoscaler_says_follows_what_the_scheduler_says() -> None:
    said = (
        notice("0/3 nodes", "FailedScheduling", source="default-scheduler"),
        notice("max node group size reached", "NotTriggerScaleUp", 5, source="cluster-autoscaler",
               warning=False),
        notice("older", "NotTriggerScaleUp", 9, source="cluster-autoscaler", warning=False),
    )  # fmt: skip
    pod = make_pod(unschedulable="0/3 nodes are available.")
    world = running().seeing(pods=(pod,), notices={"pod-1-uid": said})
    ready = world.decide().status.condition("Ready")

    assert ready is not None
    assert ready.message == (
        "No node fits: 0/3 nodes are available. cluster-autoscaler: max node group size reached"
    )


@pytest.mark.parametrize(
    ("reason", "shown"), [("FailedMount", "FailedMount"), ("", Reason.POD_PENDING)]
)
def test_a_warning_about_a_pod_on_a_node_says_why_it_does_not_start(reason, shown) -> None:
    said = (
        notice("pulled", "Pulled", source="kubelet", warning=False),
        notice("MountVolume.SetUp failed", reason, 5, source="kubelet"),
    )
    pod = make_pod(running=False)
    decision = running().seeing(pods=(pod,), notices={"pod-1-uid": said}).decide()

    assert decision.status.pending is not None
    assert decision.status.pending.reason == shown
    assert decision.status.pending.message == "The pod cannot start: MountVolume.SetUp failed"


def pulls(age: float, reason: str = "Pulling") -> Notice:
    return notice(f"{reason} image", reason, age, source="kubelet", warning=False)


PULLS = [
    ("a pull has begun", (pulls(20),), "Pulling image"),
    ("an image of another container was there", (pulls(9), pulls(20, "Pulled")), "Pulling image"),
    ("the pull is done", (pulls(3, "Pulled"), pulls(20)), ""),
    ("it was done within a second", (pulls(20, "Pulled"), pulls(20)), ""),
    ("a volume was late before", (pulls(3), notice("x", "FailedMount", 9)), "Pulling image"),
    ("the pull failed", (notice("x", "Failed", 3), pulls(20)), ""),
    ("nothing was said", (), ""),
]


@pytest.mark.parametrize(("said", "shown"), [row[1:] for row in PULLS], ids=[r[0] for r in PULLS])
@pytest.mark.parametrize("retried", [False, True])
def test_a_pod_whose_node_pulls_the_image_says_so(
    said: tuple[Notice, ...], shown: str, retried: bool
) -> None:
    ended = make_pod("pod-0", exit_code=75, age=timedelta(minutes=2))
    pods = (*([ended] if retried else []), make_pod(running=False))
    world = World(make_run()).settled()
    status = world.seeing(pods=pods, notices={"pod-1-uid": said}).decide().status
    ready = status.condition("Ready")

    assert ready is not None
    assert (ready.reason is Reason.PULLING_IMAGE) is bool(shown)
    assert (status.progress.activity if status.progress else "") == shown
    assert status.phase is (Phase.RETRYING if retried else Phase.STARTING)


def test_events_are_read_the_newest_first_and_cleaned() -> None:
    old, series, new = read_notices(
        [
            event("b", series={"lastObservedTime": "2026-11-22T11:30:00.000000Z"}),
            event("a\x1b[2J\nhf_aBcDeFgHiJkLmNoPqRsTuV " + "x" * 5000,
                  lastTimestamp="2026-11-22T11:45:00Z", source={"component": "kubelet"}),
            event("c", reason="no word, \n", reportingComponent="karpenter", type="Normal"),
        ]
    )  # fmt: skip

    assert (old.source, old.warning, old.reason) == ("kubelet", True, "FailedMount")
    assert old.message.startswith("a[2J ")
    assert "hf_aB" not in old.message
    assert len(old.message) <= 2100
    assert series.message == "b"
    assert (new.source, new.warning, new.reason) == ("karpenter", False, "")


def test_a_run_that_waits_is_looked_at_less_and_less_often() -> None:
    world = waiting()
    [job] = world.observed.jobs
    metadata = {**job["metadata"], "creationTimestamp": "2026-11-22T12:00:00Z"}
    world = world.seeing(jobs=({**job, "metadata": metadata},))
    seconds = [world.later(seconds=age).decide().requeue_seconds for age in (0, 40, 4000)]

    assert seconds == [4.0, 40.0, 300.0]
