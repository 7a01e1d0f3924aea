"""Facts about a trainer pod, read from the API object once, so that policies use plain values.

The pods of a run on several nodes that work together are one attempt: the leader, which alone
writes to storage, and its members.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flashrun.api import names
from flashrun.api.bounds import STATUS_TEXT_LIMIT, clean_text
from flashrun.api.exits import IGNORED_CODES, Exit, Termination, exit_of, parse_termination
from flashrun.api.pod import (
    DISRUPTED_CONDITION,
    ENDED_PHASES,
    MODEL_CONTAINER,
    PACKAGES_CONTAINER,
    SHARED_MEMORY_VOLUME,
    TRAINER_CONTAINER,
    container_statuses,
)
from flashrun.api.reasons import Activity, KubernetesReason
from flashrun.api.times import parse_time
from flashrun.plan.kubernetes_status import find_condition
from flashrun.plan.types import Object

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_END: Final = datetime.max.replace(tzinfo=UTC)
_CONSEQUENT_CODES: Final = frozenset({*IGNORED_CODES, Exit.NCCL})
"""Exit codes of pods that ended because another one did."""
_IMAGE_REASONS: Final = frozenset(
    {
        KubernetesReason.ERR_IMAGE_PULL,
        KubernetesReason.IMAGE_PULL_BACK_OFF,
        KubernetesReason.INVALID_IMAGE_NAME,
    }
)
_ACTIVITIES: Final = {
    MODEL_CONTAINER: Activity.DOWNLOADING,
    PACKAGES_CONTAINER: Activity.INSTALLING,
    TRAINER_CONTAINER: Activity.LOADING,
}
"""What our own containers of a pod do at first; later activities are in the heartbeat."""


@dataclass(frozen=True)
class Pod:
    """The facts about one pod that decisions depend on."""

    name: str
    uid: str
    job: int
    """Number of its Job."""
    index: int
    """Its completion index in an Indexed Job; 0 is the leader."""
    node: str
    phase: str
    created: datetime
    deleted: datetime | None
    accepted: datetime | None
    """When its kubelet took it on."""
    started: datetime | None
    """When the trainer container started."""
    ended: datetime | None
    """When the container ended that decided the pod."""
    trainer_ended: bool
    """Whether the trainer container has ended; containers of other programs may still run."""
    activity: Activity | None
    """What the running container does; None when none of ours runs."""
    container: str
    """The container of ours that ended the pod; empty when none of them did."""
    exit_code: int | None
    """Its exit code; None when none of them ended the pod."""
    killed_for_memory: bool
    """Whether the kernel ended it, or one of its processes, for its use of main memory."""
    disrupted: str
    """Reason of the DisruptionTarget condition; empty without a disruption."""
    termination: Termination | None
    start_error: str
    """What the node's runtime says of a container of ours that it could not start."""
    status_reason: str
    """Why the kubelet ended or refused the pod as a whole, such as Evicted; else empty."""
    status_message: str
    foreign_failure: str
    """One sentence when only a container of another program can have failed the pod."""
    foreign_start: str
    """One sentence while a container of another program has to be done before ours go on."""
    waiting_reason: str
    """Why a container keeps the pod from starting."""
    waiting_message: str
    image_trouble: bool
    """Whether the image of a container of ours cannot be pulled."""
    unschedulable: str
    """The scheduler's message when no node fits; else empty."""

    @property
    def active(self) -> bool:
        """Whether the pod may still write to storage, which only its trainer does."""
        return self.holds_node and not self.trainer_ended

    @property
    def holds_node(self) -> bool:
        """Whether the pod still has its GPUs."""
        return self.phase not in ENDED_PHASES

    @property
    def evicted(self) -> bool:
        """Whether the pod was evicted because it exceeded its own limits.

        An eviction for another cause has the condition DisruptionTarget.
        """
        return self.status_reason == KubernetesReason.EVICTED and not self.disrupted

    @property
    def overfilled_shared_memory(self) -> bool:
        """Whether that limit was the one on ``/dev/shm``, which is the same in every pool."""
        return self.evicted and f'"{SHARED_MEMORY_VOLUME}"' in self.status_message

    @property
    def lacked_main_memory(self) -> bool:
        """Whether main memory ran out, and not that of a GPU."""
        return self.killed_for_memory or self.exit_code == Exit.HOST_OUT_OF_MEMORY


@dataclass(frozen=True)
class Attempt:
    """The pods that work together: one per node."""

    leader: Pod
    members: tuple[Pod, ...] = ()

    @property
    def pods(self) -> tuple[Pod, ...]:
        """All pods of the attempt, the leader first."""
        return (self.leader, *self.members)

    @property
    def first_failure(self) -> Pod:
        """The pod because of which the attempt ended; the leader when none has failed.

        When one pod fails, the others fail too: they lose contact with it, or are asked to stop.
        The leader may even end before the kubelet reports the pod that failed first. So pods whose
        exit code has its cause in another pod count only when there are no others.
        """
        failed = [pod for pod in self.pods if not pod.active and pod.exit_code != 0]
        own = [
            pod
            for pod in failed
            if pod.disrupted or pod.evicted or pod.exit_code not in _CONSEQUENT_CODES
        ]
        return min(own or failed, key=lambda pod: pod.ended or _END, default=self.leader)


def read_pods(manifests: Iterable[Object]) -> tuple[Pod, ...]:
    """Return the facts in pod objects, in the order of their creation."""
    return tuple(sorted(map(read_pod, manifests), key=lambda pod: (pod.created, pod.name)))


def group_attempts(pods: Sequence[Pod]) -> tuple[Attempt, ...]:
    """Return the attempts; a member belongs to the leader with which it ran for the longest time.

    The Job controller replaces a pod as soon as it has ended, while the others of the attempt still
    run: the pods of an attempt may have started at different times. When all leaders of a Job were
    deleted, each of its pods is an attempt.
    """
    led = {pod.job for pod in pods if pod.index == 0}
    leaders = [pod for pod in pods if pod.index == 0 or pod.job not in led]
    members: dict[str, list[Pod]] = {leader.name: [] for leader in leaders}
    for pod in pods:
        if pod.name not in members:
            near = [leader for leader in leaders if leader.job == pod.job]
            members[max(near, key=lambda leader: _shared_time(leader, pod)).name].append(pod)
    return tuple(Attempt(leader, tuple(members[leader.name])) for leader in leaders)


def current_pods(pods: Sequence[Pod]) -> tuple[Pod, ...]:
    """Return the newest pod of each index of the newest Job that has pods, the leader first.

    ``pods`` are in the order of their creation. The pods in the result work together, or were the
    last that did.
    """
    newest = {pod.index: pod for pod in pods if pod.job == pods[-1].job}
    return tuple(newest[index] for index in sorted(newest))


def _shared_time(one: Pod, other: Pod) -> timedelta:
    begin = max(one.created, other.created)
    return min(one.ended or _END, other.ended or _END) - begin


def read_pod(pod: Object) -> Pod:
    """Return the facts in a pod object."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    labels = metadata.get("labels") or {}
    containers = container_statuses(pod)
    container, ended = _deciding_termination(containers)
    trainer = _trainer_state(containers)
    waiting_name, waiting = ("", {}) if _has_started(trainer) else _waiting_state(containers)
    running = trainer.get("running") or trainer.get("terminated") or {}
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        job=_number(labels.get(names.JOB_NUMBER_LABEL)),
        index=_number(labels.get(names.POD_INDEX_LABEL)),
        node=(pod.get("spec") or {}).get("nodeName", ""),
        phase=status.get("phase", "Pending"),
        created=_time(metadata.get("creationTimestamp")) or _EPOCH,
        deleted=_time(metadata.get("deletionTimestamp")),
        accepted=_time(status.get("startTime")),
        started=_time(running.get("startedAt")),
        ended=_time(ended.get("finishedAt")),
        trainer_ended="terminated" in trainer,
        activity=_activity(containers),
        container=container,
        exit_code=ended.get("exitCode"),
        killed_for_memory=_killed_for_memory(ended),
        disrupted=(find_condition(pod, DISRUPTED_CONDITION) or {}).get("reason", ""),
        termination=parse_termination(ended.get("message") or ""),
        start_error=_start_error(ended),
        status_reason=status.get("reason", ""),
        status_message=_clean(status.get("message")),
        foreign_failure="" if ended else _foreign_failure(containers, status.get("phase", "")),
        foreign_start=_foreign_start(pod),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=_waiting_message(waiting_name, waiting),
        image_trouble=waiting_name in _ACTIVITIES and waiting.get("reason") in _IMAGE_REASONS,
        unschedulable=_clean((find_condition(pod, "PodScheduled", "False") or {}).get("message")),
    )


def is_held_by_other_containers(pod: Pod) -> bool:
    """Return whether the trainer has ended and containers of other programs keep the pod alive."""
    return pod.holds_node and pod.trainer_ended


def _trainer_state(containers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of the trainer; other programs may have added containers to the pod."""
    states = (item.get("state") for item in containers if item["name"] == TRAINER_CONTAINER)
    return next(states, None) or {}


def _has_started(state: dict[str, Any]) -> bool:
    return "running" in state or "terminated" in state


def _killed_for_memory(ended: dict[str, Any]) -> bool:
    """Return whether a container ended because main memory ran out.

    A runtime reports it also when the kernel ended only a child process, and the container went on
    and knew later why it ended.
    """
    oom = ended.get("reason") == KubernetesReason.OOM_KILLED
    return oom and exit_of(ended.get("exitCode")) is None


def _start_error(ended: dict[str, Any]) -> str:
    """Return why a container was never started; empty for one that was."""
    if ended.get("reason") != KubernetesReason.START_ERROR:
        return ""
    return _clean(ended.get("message")) or KubernetesReason.START_ERROR


def _deciding_termination(containers: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Return the container of ours that decided the pod, and its state; empty without one.

    The first failure decides, else the end of the trainer. Containers that other programs added
    are stopped with the pod, may end with any code or never, and decide nothing.
    """
    ended: list[tuple[str, dict[str, Any]]] = [
        (item["name"], state)
        for item in containers
        if item["name"] in _ACTIVITIES and (state := (item.get("state") or {}).get("terminated"))
    ]
    failed = [item for item in ended if item[1].get("exitCode") != 0]
    done = [item for item in ended if item[0] == TRAINER_CONTAINER]
    return next(iter((*failed, *done)), ("", {}))


def _foreign_failure(containers: list[dict[str, Any]], phase: str) -> str:
    """Return a sentence about the first container of another program that failed the pod."""
    if phase != "Failed":
        return ""
    for item in containers:
        state = (item.get("state") or {}).get("terminated") or {}
        if item["name"] not in _ACTIVITIES and state.get("exitCode", 0) != 0:
            code = state["exitCode"]
            return _added(item["name"], f"ended with exit code {code} before the trainer started.")
    return ""


def _foreign_start(pod: Object) -> str:
    """Return a sentence about the init container of another program that the pod waits for.

    The kubelet says that the pod is not initialized also while a sidecar among the init containers
    has not passed its startup probe; one that has lets ours run, whose image may have to be pulled.
    """
    status = pod.get("status") or {}
    added = (pod.get("spec") or {}).get("initContainers") or []
    sidecars = {item["name"] for item in added if item.get("restartPolicy") == "Always"}
    if find_condition(pod, "Initialized", "False") is None or _activity(container_statuses(pod)):
        return ""
    running = [
        item["name"]
        for item in status.get("initContainerStatuses") or []
        if (item.get("state") or {}).get("running")
        and not (item["name"] in sidecars and item.get("started"))
    ]
    return _added(running[-1], "has to be done first.") if running else ""


def _waiting_state(containers: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Return the name and the state of the first container that waits for something unusual."""
    ordinary = (KubernetesReason.POD_INITIALIZING, KubernetesReason.CONTAINER_CREATING)
    for item in containers:
        state = (item.get("state") or {}).get("waiting")
        if state and state.get("reason") not in ordinary:
            return item["name"], state
    return "", {}


def _waiting_message(name: str, state: dict[str, Any]) -> str:
    if not state:
        return ""
    message = _clean(state.get("message"))
    if name in _ACTIVITIES:
        return message
    return _added(name, f"waits: {message or state.get('reason', '')}")


def _added(name: str, what: str) -> str:
    return f"Container {name}, which another program added, {what}"


def _clean(text: str | None) -> str:
    """Return a sentence of another program within bounds, on one line and without secrets."""
    return clean_text((text or "")[:STATUS_TEXT_LIMIT])


def _activity(containers: list[dict[str, Any]]) -> Activity | None:
    running = (item["name"] for item in containers if (item.get("state") or {}).get("running"))
    return next((_ACTIVITIES[name] for name in running if name in _ACTIVITIES), None)


def _time(text: str | None) -> datetime | None:
    """Return a time of the kubelet; it dates what has not happened to the beginning of 1970."""
    moment = None if text is None else parse_time(text)
    return None if moment == _EPOCH else moment


def _number(label: str | None) -> int:
    """Return the number in a label, which people may have changed; 0 for anything else."""
    return int(label) if label and label.isascii() and label.isdecimal() and len(label) < 6 else 0
