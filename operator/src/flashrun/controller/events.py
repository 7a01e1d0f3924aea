"""Kubernetes Events for users: ``kubectl describe flashrun`` shows each reason once.

A run has one Event per reason, which is updated. Its name is made from both, so that a restarted
operator does not create it again.
"""

import hashlib
import logging
from datetime import datetime
from typing import Final

from flashrun.api import names
from flashrun.api.resource import FlashRun
from flashrun.api.times import format_time
from flashrun.cluster import Cluster
from flashrun.cluster_errors import AlreadyExists, ClusterError
from flashrun.plan.types import RunEvent

_MESSAGE_LIMIT: Final = 1024

log = logging.getLogger(__name__)


async def post(cluster: Cluster, run: FlashRun, event: RunEvent, now: datetime) -> None:
    """Create or update an Event; a failure is only logged, because no run depends on it."""
    digest = hashlib.sha256(f"{run.uid} {event.reason}".encode()).hexdigest()[:16]
    name = f"{run.name}.{digest}"
    try:
        await _write(cluster, run, event, name, now)
    except ClusterError as error:
        log.warning("event %s was not posted: %s", event.reason, error)


async def _write(
    cluster: Cluster, run: FlashRun, event: RunEvent, name: str, now: datetime
) -> None:
    moment = format_time(now)
    message = event.message[:_MESSAGE_LIMIT]
    manifest = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": run.namespace},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": run.name,
            "namespace": run.namespace,
            "uid": run.uid,
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
        await cluster.patch("Event", run.namespace, name, changes)
