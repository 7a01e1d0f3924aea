"""How soon a run is due after each thing that a watch shows."""

import json
from typing import Any

from msgspec import Raw

from flashrun.api import names
from flashrun.controller.cache_filler import (
    NEW_JOB_SECONDS,
    OWN_WRITE_SECONDS,
    SHORT_SECONDS,
    CacheFiller,
)
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.queue import RunKey

TEAM = "team-a"


class Watched:
    """What a watch of one namespace shows, and what became due."""

    def __init__(self) -> None:
        self.cache = ObjectCache()
        self.due: list[tuple[str, float]] = []
        self.filler = CacheFiller(self.cache, self._add, lambda manifest: None)

    def _add(self, key: RunKey, delay: float) -> None:
        self.due.append((key.name, delay))

    def show(self, kind: str, change: str, version: int, **more: Any) -> list[tuple[str, float]]:
        """Show an event; returns which runs became due by it, and how soon."""
        labels = {names.RUN_LABEL: "run", names.RUN_UID_LABEL: "run-uid"}
        metadata: dict[str, Any] = {"name": "run", "uid": "run-uid", "generation": 1}
        if kind != names.KIND:
            metadata = {"name": "child", "uid": "child-uid", "labels": labels}
        metadata |= {"resourceVersion": str(version), **more.pop("metadata", {})}
        content = {"metadata": metadata, "spec": {}, "status": {}, **more}
        self.due.clear()
        self.filler.event(kind, TEAM, change, Raw(json.dumps(content).encode()), str(version))
        return list(self.due)


def test_a_new_run_and_what_people_change_in_it_are_due_at_once() -> None:
    watched = Watched()
    assert watched.show(names.KIND, "ADDED", 1) == [("run", 0.0)]
    changed = {"generation": 2}
    assert watched.show(names.KIND, "MODIFIED", 2, metadata=changed) == [("run", 0.0)]
    deleted = {"generation": 3, "deletionTimestamp": "2026-11-30T00:00:00Z"}
    assert watched.show(names.KIND, "MODIFIED", 3, metadata=deleted) == [("run", 0.0)]


def test_changes_of_jobs_and_pods_are_waited_for_a_moment() -> None:
    watched = Watched()
    assert watched.show("Job", "ADDED", 1) == [("run", NEW_JOB_SECONDS)]
    assert watched.show("Job", "MODIFIED", 2) == [("run", SHORT_SECONDS)]
    assert watched.show("Pod", "ADDED", 3) == [("run", SHORT_SECONDS)]
    assert watched.show("Pod", "MODIFIED", 4) == [("run", SHORT_SECONDS)]


def test_a_pod_that_ends_is_not_waited_for() -> None:
    watched, ended = Watched(), {"phase": "Succeeded"}
    watched.show("Pod", "ADDED", 1)
    assert watched.show("Pod", "MODIFIED", 2, status=ended) == [("run", 0.0)]
    assert watched.show("Pod", "MODIFIED", 3, status=ended) == [("run", SHORT_SECONDS)]
    assert watched.show("Pod", "DELETED", 4, status=ended) == [("run", SHORT_SECONDS)]


def test_a_status_that_this_process_wrote_asks_for_no_pass_soon() -> None:
    watched = Watched()
    watched.show(names.KIND, "ADDED", 1)
    watched.cache.wrote(names.KIND, TEAM, "run-uid", {"resourceVersion": "2"})
    assert watched.show(names.KIND, "MODIFIED", 2) == [("run", OWN_WRITE_SECONDS)]
    assert watched.show(names.KIND, "MODIFIED", 3) == [("run", SHORT_SECONDS)]


def test_a_run_that_ends_is_due_at_once_though_this_process_wrote_it() -> None:
    """Its Job gets a time to live in the pass that follows."""
    watched = Watched()
    watched.show(names.KIND, "ADDED", 1)
    watched.cache.wrote(names.KIND, TEAM, "run-uid", {"resourceVersion": "2"})
    status = {"phase": "Succeeded", "observedGeneration": 1}
    assert watched.show(names.KIND, "MODIFIED", 2, status=status) == [("run", 0.0)]
    assert watched.show(names.KIND, "MODIFIED", 3, status=status) == []
