"""Kubernetes Events for people: ``kubectl describe`` shows each reason once.

An object has one Event per reason, which is updated. Its name is made from both: an operator that
was restarted does not create it again.
"""

import hashlib
import logging
import os
from datetime import datetime
from typing import Final, NamedTuple, Self

from flashrun.api import names
from flashrun.api.pod import POD_UID_VARIABLE, POD_VARIABLE
from flashrun.api.resource import FlashRun
from flashrun.api.times import format_time
from flashrun.cluster import Cluster
from flashrun.cluster_errors import AlreadyExists, ClusterError
from flashrun.plan.types import RunEvent

_MESSAGE_LIMIT: Final = 1024

log = logging.getLogger(__name__)


class Subject(NamedTuple):
    """The object that an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, run: FlashRun) -> Self:
        """Return a run as the object of an Event."""
        return cls(names.API_VERSION, names.KIND, run.namespace, run.name, run.uid)


def own_pod(namespace: str) -> Subject | None:
    """Return the pod that this process runs in; None outside a pod."""
    name, uid = os.environ.get(POD_VARIABLE, ""), os.environ.get(POD_UID_VARIABLE, "")
    return Subject("v1", "Pod", namespace, name, uid) if name else None


async def post(cluster: Cluster, subject: Subject, event: RunEvent, now: datetime) -> None:
    """Create or update an Event; a failure is only logged, because no run depends on it."""
    digest = hashlib.sha256(f"{subject.uid} {event.reason}".encode()).hexdigest()[:16]
    name = f"{subject.name}.{digest}"
    try:
        await _write(cluster, subject, event, name, now)
    except ClusterError as error:
        log.warning("event %s was not posted: %s", event.reason, error)


async def _write(
    cluster: Cluster, subject: Subject, event: RunEvent, name: str, now: datetime
) -> None:
    moment = format_time(now)
    message = event.message[:_MESSAGE_LIMIT]
    manifest = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": subject.namespace},
        "involvedObject": {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "name": subject.name,
            "namespace": subject.namespace,
            "uid": subject.uid,
        },
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason,
        "message": message,
        "source": {"component": names.FIELD_MANAGER},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
    try:
        await cluster.create(manifest)
    except AlreadyExists:
        changes = {"lastTimestamp": moment, "message": message}
        await cluster.patch("Event", subject.namespace, name, changes)
