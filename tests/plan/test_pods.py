"""Facts of pods, and which pods of several nodes made one attempt."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from flashrun.api import names
from flashrun.api.reasons import Activity, ConditionType, Phase, Reason, Retry
from flashrun.plan import failures
from flashrun.plan.pods import read_pod
from tests.plan import worlds
from tests.plan.worlds import World, make_pod, make_run, member

SECOND = timedelta(seconds=1)


FIRST_FAILURES = [
    ("the member failed and the leader lost contact",
     {"exit_code": 67}, {"exit_code": 75, "ended": SECOND}, "StorageUnavailable", "pod-2"),
    ("the leader ended before the member's end was reported",
     {"exit_code": 67, "ended": SECOND}, {"exit_code": 72}, "DataInvalid", "pod-2"),
    ("the leader failed and the member was stopped",
     {"exit_code": 71, "ended": SECOND}, {"exit_code": 41}, "Diverged", ""),
    ("both failed, the leader first",
     {"exit_code": 70, "ended": SECOND}, {"exit_code": 70}, "EnvironmentFailed", ""),
    ("the network broke", {"exit_code": 67, "ended": SECOND}, {"exit_code": 67},
     "NcclFailure", ""),
    ("the member was preempted",
     {"exit_code": 67}, {"exit_code": 40, "disrupted": "PreemptionByScheduler"},
     "PreemptionByScheduler", "pod-2"),
    ("the member ran out of memory", {"exit_code": 67},
     {"exit_code": 137, "reason": "OOMKilled", "ended": SECOND}, "HostOutOfMemory", "pod-2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("leads", "follows", "reason", "named"),
    [row[1:] for row in FIRST_FAILURES],
    ids=[row[0] for row in FIRST_FAILURES],
)
def test_an_attempt_is_explained_by_the_pod_that_failed_first(
    leads, follows, reason, named
) -> None:
    pods = (make_pod(index=0, **leads), member(**follows))
    [attempt] = worlds.on_two_nodes().seeing(pods=pods).decide().status.attempts

    assert (attempt.pod, attempt.node, attempt.reason) == ("pod-1", "node-1", reason)
    assert attempt.message == (f"Pod {named} failed first." if named else "")


def test_a_replaced_pod_belongs_to_the_attempt_it_works_in() -> None:
    minute = timedelta(minutes=1)
    pods = (
        make_pod(index=0, exit_code=67, age=10 * minute, ended=5 * minute),
        member(exit_code=75, age=10 * minute, ended=6 * minute),
        make_pod("pod-3", index=1, node="node-3", age=5.5 * minute, exit_code=72, ended=minute),
        make_pod("pod-4", index=0, age=4 * minute, exit_code=67),
    )
    first, second = worlds.on_two_nodes().seeing(pods=pods).decide().status.attempts

    assert (first.pod, first.reason, first.message) == (
        "pod-1", "StorageUnavailable", "Pod pod-2 failed first.",
    )  # fmt: skip
    assert (second.pod, second.reason, second.message) == (
        "pod-4", "DataInvalid", "Pod pod-3 failed first.",
    )  # fmt: skip


# --- containers that another program has added to the pod -----------------------------------------

PROXY = {"running": {"startedAt": "2026-11-22T11:59:35Z"}}
INITIALIZING = {"waiting": {"reason": "PodInitializing"}}
STOPPED = {"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": "2026-11-22T12:00:00Z"}}


def with_container(pod: dict, name: str, state: dict, kind: str = "containerStatuses") -> dict:
    """Return ``pod`` with a container that the kubelet lists before those of the same kind."""
    statuses = [{"name": name, "state": state}, *pod["status"].get(kind, [])]
    return {**pod, "status": {**pod["status"], kind: statuses}}


def test_a_sidecar_that_runs_first_is_not_taken_for_the_trainer() -> None:
    preparing = with_container(make_pod(container="packages"), "trainer", INITIALIZING)
    pod = read_pod(with_container(preparing, "istio-proxy", PROXY))
    status = World(make_run()).settled().seeing(pods=(preparing,)).decide().status
    injected = with_container(preparing, "istio-proxy", PROXY)
    with_sidecar = World(make_run()).settled().seeing(pods=(injected,)).decide().status

    assert (pod.started, pod.activity) == (None, Activity.INSTALLING)
    assert with_sidecar == status
    assert with_sidecar.phase is Phase.STARTING
    ready = with_sidecar.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.INSTALLING


def test_a_trainer_cannot_stall_before_it_starts_while_a_sidecar_runs() -> None:
    preparing = with_container(make_pod(container="packages"), "trainer", INITIALIZING)
    injected = with_container(preparing, "istio-proxy", PROXY)
    world = World(make_run()).settled().seeing(pods=(injected,))

    assert world.later(hours=2).decide().delete == ()


def test_a_trainer_is_found_after_a_sidecar() -> None:
    trainer = read_pod(make_pod())
    pod = read_pod(with_container(make_pod(), "istio-proxy", PROXY))

    assert trainer.started is not None
    assert (pod.started, pod.activity) == (trainer.started, Activity.LOADING)


@pytest.mark.parametrize("code", [0, 65], ids=["the trainer is done", "the trainer has failed"])
@pytest.mark.parametrize("kind", ["initContainerStatuses", "containerStatuses"])
def test_a_pod_ends_as_its_trainer_does_and_not_as_a_stopped_sidecar(kind, code) -> None:
    pod = with_container(make_pod(exit_code=code), "istio-proxy", STOPPED, kind)

    assert read_pod(pod).exit_code == code


@pytest.mark.parametrize("name", ["model", "packages"])
def test_init_containers_that_are_done_end_no_pod_whose_trainer_runs(name: str) -> None:
    done = {"terminated": {"exitCode": 0, "finishedAt": "2026-11-22T11:59:30Z"}}
    pod = read_pod(with_container(make_pod(), name, done, "initContainerStatuses"))

    assert (pod.exit_code, pod.trainer_ended, pod.active) == (None, False, True)


def test_a_sidecar_that_failed_the_pod_of_a_trainer_that_succeeded_decides_nothing() -> None:
    pod = with_container(make_pod(exit_code=0), "istio-proxy", STOPPED)
    pod["status"]["phase"] = "Failed"

    assert (read_pod(pod).exit_code, read_pod(pod).foreign_failure) == (0, "")


def test_a_container_that_failed_the_pod_before_the_trainer_started_is_named() -> None:
    pod = make_pod(running=False)
    pod["status"] |= {"phase": "Failed", "containerStatuses": []}
    failed = read_pod(with_container(pod, "istio-init", STOPPED, "initContainerStatuses"))

    assert failed.exit_code is None
    assert failed.foreign_failure == (
        "Container istio-init, which another program added, ended with exit code 143 before the "
        "trainer started."
    )
    assert failures.pod_reason(failed) is Reason.ADDED_CONTAINER_FAILED
    assert failures.pod_retry(failed) is Retry.COUNTED  # 143 of the trainer would be free


def test_a_pod_whose_trainer_has_ended_is_not_active_and_still_holds_its_node() -> None:
    ended = make_pod(exit_code=0)
    ended["status"]["phase"] = "Running"
    pod = read_pod(with_container(ended, "istio-proxy", PROXY))

    assert (pod.active, pod.holds_node, pod.exit_code) == (False, True, 0)


@pytest.mark.parametrize("place", ["before ours", "behind ours"])
def test_an_added_init_container_that_does_not_end_is_named(place: str) -> None:
    ours = make_pod(container="packages", exit_code=0) if place == "behind ours" else make_pod()
    pod = {**ours, "status": {**ours["status"], "phase": "Pending", "containerStatuses": []}}
    pod["status"]["conditions"] = [{"type": "Initialized", "status": "False"}]
    held = with_container(
        with_container(pod, "trainer", INITIALIZING), "istio-init", PROXY, "initContainerStatuses"
    )
    ready = worlds.running().seeing(pods=(held,)).decide().status.condition(ConditionType.READY)

    assert ready is not None
    assert (ready.reason, ready.message) == (
        Reason.STARTING,
        "The pod starts. Container istio-init, which another program added, has to be done first.",
    )


def test_a_sidecar_that_has_started_is_not_waited_for() -> None:
    pod = with_container(
        make_pod(container="packages"), "istio-proxy", PROXY, "initContainerStatuses"
    )
    pod["status"]["conditions"] = [{"type": "Initialized", "status": "False"}]
    done = {**pod, "status": {**pod["status"], "conditions": []}}
    done["status"]["initContainerStatuses"] = pod["status"]["initContainerStatuses"][:1]

    assert [read_pod(item).foreign_start for item in (pod, done)] == ["", ""]


@pytest.mark.parametrize(
    ("started", "policy", "named"),
    [(True, "Always", False), (False, "Always", True), (True, None, True)],
    ids=["a sidecar that has started", "one whose probe has not passed", "no sidecar"],
)
def test_while_an_image_of_ours_is_pulled_a_sidecar_holds_nothing(
    started: bool, policy: str | None, named: bool
) -> None:
    """The kubelet says of every init container that runs without a probe that it has started."""
    pod = with_container(make_pod(), "istio-proxy", PROXY, "initContainerStatuses")
    for item in pod["status"]["initContainerStatuses"]:
        item |= {"started": started}
    pod["status"] |= {"containerStatuses": []}
    pod["status"]["conditions"] = [{"type": "Initialized", "status": "False"}]
    pod["spec"] = {"initContainers": [{"name": "istio-proxy", "restartPolicy": policy}]}

    assert bool(read_pod(pod).foreign_start) is named


WAITS = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}


def test_a_sidecar_whose_image_is_missing_hides_no_trainer_that_runs() -> None:
    pod = read_pod(with_container(make_pod(), "fluent-bit", WAITS))
    status = worlds.running().seeing(pods=(with_container(make_pod(), "fluent-bit", WAITS),))

    assert (pod.waiting_reason, pod.image_trouble) == ("", False)
    assert status.decide().status.phase is Phase.RUNNING


def test_the_image_of_a_sidecar_is_waited_for_by_name_and_fails_no_run() -> None:
    preparing = with_container(make_pod(running=False), "trainer", INITIALIZING)
    preparing["status"]["containerStatuses"] = preparing["status"]["containerStatuses"][:1]
    manifest = with_container(preparing, "fluent-bit", WAITS, "initContainerStatuses")
    pod = read_pod(manifest)
    waiting = worlds.running().seeing(pods=(manifest,), pull_failed_seconds={pod.uid: 7200.0})
    status = waiting.decide().status

    assert not pod.image_trouble
    assert status.phase is Phase.STARTING
    assert status.pending is not None
    assert "Container fluent-bit, which another program added, waits: not found" in (
        status.pending.message
    )


def test_sentences_of_other_programs_are_cleaned() -> None:
    manifest = make_pod(unschedulable="0/3 nodes\x1b[31m are\n available")
    manifest["status"] |= {"reason": "Evicted", "message": "disk\u202e " + "x" * 9000}
    pod = read_pod(manifest)

    assert pod.unschedulable == "0/3 nodes[31m are  available"
    assert pod.status_message.isprintable()
    assert len(pod.status_message) <= 2048


@given(
    some.dictionaries(
        some.sampled_from([names.JOB_NUMBER_LABEL, names.POD_INDEX_LABEL, names.RUN_LABEL]),
        some.text(max_size=63) | some.integers().map(str),
    ),
    some.text(max_size=4096),
)
@settings(deadline=None)
def test_any_labels_and_termination_message_are_read(labels: dict[str, str], text: str) -> None:
    """An editor of the namespace may write the labels of pods, and code in it the message."""
    pod = make_pod(exit_code=1)
    pod["metadata"]["labels"] = labels
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = text
    found = read_pod(pod)
    assert 0 <= found.job < 2**31
    assert found.index is None or 0 <= found.index < 2**31


# --- pods that end without a word of ours, or do not end -----------------------------------------

REJECTED = "Pod was rejected: Node didn't have enough resource: cpu, requested: 500, used: 4000"
SHUTDOWN = "Pod was terminated in response to imminent node shutdown."
ENDS_OF_OTHERS = {
    "the kubelet refused the pod": ("OutOfcpu", REJECTED, "", "OutOfcpu", REJECTED),
    "the node is shut down": (
        "Terminated", SHUTDOWN, "TerminationByKubelet", "TerminationByKubelet",
        SHUTDOWN.removesuffix("."),
    ),
    "words without an end": (
        "UnexpectedAdmissionError", "x" * 900, "", "UnexpectedAdmissionError", "x" * 255 + "…",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "message", "disrupted", "word", "shown"),
    ENDS_OF_OTHERS.values(),
    ids=ENDS_OF_OTHERS,
)
def test_why_the_kubelet_ended_a_pod_is_said_while_the_next_one_is_waited_for(
    reason: str, message: str, disrupted: str, word: str, shown: str
) -> None:
    pod = make_pod(running=False, disrupted=disrupted)
    pod["status"] |= {"phase": "Failed", "reason": reason, "message": message}
    status = World(make_run()).settled().seeing(pods=(pod,)).decide().status
    [attempt] = status.attempts

    assert status.pending is not None
    assert status.pending.message.startswith(
        f"The last attempt ended: {word} ({message.removesuffix('.')}). The Job controller "
    )
    assert (attempt.reason, attempt.message.removesuffix(".")) == (word, shown)


def test_what_the_trainer_said_needs_no_words_of_the_kubelet() -> None:
    pod = make_pod(exit_code=75, disrupted="PreemptionByScheduler")
    pod["status"]["message"] = "Preempted by pod x on node node-1"
    [attempt] = worlds.running().seeing(pods=(pod,)).decide().status.attempts

    assert attempt.message == ""


@pytest.mark.parametrize(
    ("disrupted", "cause"), [("DeletionByTaintManager", " (DeletionByTaintManager)"), ("", "")]
)
def test_a_pod_that_was_asked_to_stop_and_has_not_ended_says_so(disrupted: str, cause: str) -> None:
    pod = make_pod(deleted=timedelta(minutes=3), age=timedelta(hours=1), disrupted=disrupted)
    status = worlds.running().seeing(pods=(pod,)).decide().status
    ready = status.condition(ConditionType.READY)

    assert ready is not None
    assert (status.phase, ready.reason, ready.message) == (
        Phase.RUNNING,
        Reason.INTERRUPTED,
        f"The pod was asked to stop{cause}; another one goes on when it has ended, or when its "
        "node has not answered for 10 minutes.",
    )


NO_DRIVER = "failed to create containerd task: nvml error: driver not loaded: unknown"


def not_started(message: str = NO_DRIVER, **more: str) -> dict:
    """A pod whose trainer the node could not start; the kubelet dates its start to 1970."""
    pod = make_pod(exit_code=128, reason="StartError", **more)
    kind = "initContainerStatuses" if "container" in more else "containerStatuses"
    ended = pod["status"][kind][0]["state"]["terminated"]
    ended |= {"startedAt": "1970-01-01T00:00:00Z", "message": message}
    return pod


@pytest.mark.parametrize("container", ["trainer", "packages"])
def test_why_the_node_could_not_start_a_container_is_said_in_its_words(container: str) -> None:
    pod = not_started(**({} if container == "trainer" else {"container": container}))
    status = World(make_run()).settled().seeing(pods=(pod,)).decide().status
    [attempt] = status.attempts

    assert (attempt.reason, attempt.message) == ("StartError", NO_DRIVER)
    assert status.pending is not None
    assert f"The last attempt ended: StartError ({NO_DRIVER}). " in status.pending.message
    assert failures.pod_failure(read_pod(pod)).message == (
        f"The node could not start container {container}: {NO_DRIVER}"
    )
    assert failures.pod_retry(read_pod(pod)) is Retry.COUNTED


def test_a_container_that_was_not_started_has_used_no_gpu_since_1970() -> None:
    """Budgets would be used up, and costs be those of half a century."""
    world = World(make_run()).settled().seeing(pods=(not_started(),))
    status = world.act(world.decide()).decide().status

    assert (read_pod(not_started()).started, status.start_time) == (None, None)
    assert status.gpu_seconds < 60
    assert read_pod(not_started("")).start_error == "StartError"
