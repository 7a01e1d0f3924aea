"""A trainer pod's facts, taken out of the API object once, so that policies read plain values."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from flashrun.plan.world import Object
from flashrun.spec.outcome import Termination, parse_termination

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_IMAGE_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName"})


@dataclass(frozen=True)
class Pod:
    """What one pod says about itself."""

    name: str
    uid: str
    node: str
    phase: str
    created: datetime
    deleted: datetime | None
    started: datetime | None
    """When the trainer container started."""
    ended: datetime | None
    activity: str
    """Which container is at work, while none has failed."""
    exit_code: int | None
    """Code of the container that ended the pod."""
    killed_for_memory: bool
    disrupted: str
    """Reason of the DisruptionTarget condition; empty when nobody disrupted the pod."""
    termination: Termination | None
    waiting_reason: str
    waiting_message: str
    unschedulable: str
    """The scheduler's message while no node fits."""

    @property
    def active(self) -> bool:
        """Whether the pod may still write."""
        return self.phase not in ("Succeeded", "Failed")

    @property
    def image_trouble(self) -> bool:
        """Whether the image cannot be pulled."""
        return self.waiting_reason in _IMAGE_REASONS


def read(pod: Object) -> Pod:
    """Take the facts out of a pod object."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    containers = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    ended = _ending(containers)
    waiting = _waiting(containers)
    trainer = (status.get("containerStatuses") or [{}])[0].get("state") or {}
    running = trainer.get("running") or trainer.get("terminated") or {}
    return Pod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        node=(pod.get("spec") or {}).get("nodeName", ""),
        phase=status.get("phase", "Pending"),
        created=_time(metadata.get("creationTimestamp")) or _EPOCH,
        deleted=_time(metadata.get("deletionTimestamp")),
        started=_time(running.get("startedAt")),
        ended=_time(ended.get("finishedAt")),
        activity=_activity(containers),
        exit_code=ended.get("exitCode"),
        killed_for_memory=ended.get("reason") == "OOMKilled",
        disrupted=_condition(status, "DisruptionTarget", "True").get("reason", ""),
        termination=parse_termination(ended.get("message") or ""),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        unschedulable=_condition(status, "PodScheduled", "False").get("message", ""),
    )


def _ending(containers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the terminated state that decided the pod: the first failure, else the end."""
    states = ((item.get("state") or {}).get("terminated") for item in containers)
    ended: list[dict[str, Any]] = [state for state in states if state]
    failed = [state for state in ended if state.get("exitCode") != 0]
    if failed:
        return failed[0]
    return ended[-1] if len(ended) == len(containers) and ended else {}


def _waiting(containers: list[dict[str, Any]]) -> dict[str, Any]:
    states = ((item.get("state") or {}).get("waiting") for item in containers)
    ordinary = ("PodInitializing", "ContainerCreating")
    return next((state for state in states if state and state.get("reason") not in ordinary), {})


def _activity(containers: list[dict[str, Any]]) -> str:
    running = (item["name"] for item in containers if (item.get("state") or {}).get("running"))
    names = {"model": "Downloading", "packages": "Installing", "trainer": "Training"}
    return names.get(next(running, ""), "")


def _condition(status: dict[str, Any], kind: str, value: str) -> dict[str, Any]:
    found = (
        condition
        for condition in status.get("conditions") or []
        if condition.get("type") == kind and condition.get("status") == value
    )
    return next(found, {})


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
