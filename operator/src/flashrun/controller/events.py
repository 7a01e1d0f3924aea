"""Kubernetes Events for people: ``kubectl describe`` shows each reason once.

An object has one Event per reason, which is updated. Its name is made from both: an operator that
was restarted does not create it again.
"""

import asyncio
import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple, Self

from flashrun.api import names
from flashrun.api.pod import POD_UID_VARIABLE, POD_VARIABLE
from flashrun.api.resource import FlashRun
from flashrun.api.times import format_time
from flashrun.cluster import Cluster
from flashrun.cluster_errors import AlreadyExists, ClusterError
from flashrun.plan.types import RunEvent

WAITING_LIMIT: Final = 1_000
"""Most Events of one namespace that wait to be posted."""
POST_SECONDS: Final = 10.0
"""Longest time to post one."""
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


class _WaitingEvent(NamedTuple):
    subject: Subject
    event: RunEvent
    moment: datetime


class EventPoster:
    """Posts Events one after the other, so that no pass waits for it; namespaces take turns.

    Of an object and a reason the newest one is posted. When too many of a namespace wait, its
    oldest one is dropped. All calls are made in one event loop.
    """

    def __init__(self, cluster: Cluster, leading: Callable[[], bool]) -> None:
        self._cluster, self._leading = cluster, leading
        self._waiting: OrderedDict[str, OrderedDict[tuple[str, str], _WaitingEvent]] = OrderedDict()
        self._added = asyncio.Event()

    def add(self, subject: Subject, event: RunEvent, now: datetime) -> None:
        """Let an Event be posted soon; returns at once."""
        waiting = self._waiting.setdefault(subject.namespace, OrderedDict())
        key = (subject.uid, str(event.reason))
        waiting.pop(key, None)
        waiting[key] = _WaitingEvent(subject, event, now)
        if len(waiting) > WAITING_LIMIT:
            waiting.popitem(last=False)
        self._added.set()

    async def run(self) -> None:
        """Post for ever."""
        while True:
            await self._added.wait()
            await self.drain()

    async def drain(self) -> None:
        """Post all that wait."""
        while self._waiting:
            namespace, waiting = self._waiting.popitem(last=False)
            _, (subject, event, moment) = waiting.popitem(last=False)
            if waiting:
                self._waiting[namespace] = waiting
            if self._leading():
                await self._post(subject, event, moment)
        self._added.clear()

    async def _post(self, subject: Subject, event: RunEvent, moment: datetime) -> None:
        try:
            async with asyncio.timeout(POST_SECONDS):
                await post(self._cluster, subject, event, moment)
        except TimeoutError:
            log.warning("event %s was not posted: no answer in time", event.reason)


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
