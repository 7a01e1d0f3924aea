"""The pods of a run, what their log lines look like, and logs in storage."""

from typing import Any, Final

from flashrun.api import names
from flashrun.api.pod import CONTAINERS, TRAINER_CONTAINER, container_statuses
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.store_errors import KeyNotFound

LONGEST_LINE: Final = 64 * 1024
"""Longest log line that is printed, in characters."""


def attempt_pod_name(run: FlashRun, attempt: int) -> str:
    """Return the name of an attempt's pod; empty while it has none."""
    return next((item.pod for item in run.status.attempts if item.number == attempt), "")


def node_prefix(pod: dict[str, Any]) -> str:
    """Return the prefix of a pod's log lines: "node N", or empty for node 0."""
    index = pod["metadata"].get("labels", {}).get(names.POD_INDEX_LABEL, "0")
    return "" if index == "0" else f"node {index}"


def format_log_line(container: str, line: str, prefix: str = "") -> str:
    """Return a log line as it is printed; a line of an init container begins with its name."""
    text = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}… (cut)"
    source = " ".join(filter(None, (prefix, "" if container == TRAINER_CONTAINER else container)))
    return f"[{source}] {text}" if source else text


async def list_pods(session: ClusterSession, run: FlashRun) -> list[dict[str, Any]]:
    """Return the run's pods, oldest first."""
    labels = {names.RUN_LABEL: run.name, names.RUN_UID_LABEL: run.uid}
    pods = await session.cluster.list("Pod", run.namespace, labels)
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


def started_containers(pod: dict[str, Any]) -> list[str]:
    """Return the containers of a pod that are running or have run, in the order they run."""
    started = {
        item["name"]
        for item in container_statuses(pod)
        if item.get("state", {}).keys() & {"running", "terminated"} and not _never_started(item)
    }
    return [name for name in CONTAINERS if name in started]


def _never_started(status: dict[str, Any]) -> bool:
    """Return whether a container ended before it was created, so that it has no log."""
    terminated = status.get("state", {}).get("terminated")
    return terminated is not None and not terminated.get("containerID")


async def read_stored_log(session: ClusterSession, run: FlashRun, attempt: int) -> list[str]:
    """Return the lines of an attempt's log in storage."""
    key = names.log_key(run.storage_prefix, attempt)
    data = await session.with_store(lambda store: store.get_bytes(key))
    return data.decode(errors="replace").splitlines()


async def read_newest_log(session: ClusterSession, run: FlashRun) -> list[str]:
    """Return the lines of the newest log of a run in storage, also of pods without an attempt.

    Raises:
        KeyNotFound: it has none.
    """
    prefix = names.logs_prefix(run.storage_prefix)
    entries = await session.with_store(lambda store: list(store.list(prefix)))
    if not entries:
        raise KeyNotFound(f"{prefix} is empty")
    key = max(entries, key=lambda entry: (str(entry.modified), entry.key)).key
    data = await session.with_store(lambda store: store.get_bytes(key))
    return data.decode(errors="replace").splitlines()
