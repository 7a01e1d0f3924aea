"""What a watch did not show is noticed by the next comparison, and read from then on."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from flashrun.api import names
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Unreachable
from flashrun.controller import lost_events
from flashrun.controller.lost_events import LostEvents
from flashrun.controller.object_cache import ObjectCache
from flashrun.controller.queue import RunKey
from flashrun.controller.watched_objects import WATCHED_KINDS
from tests.controller.test_object_cache import TEAM, item, jobs, listed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_events, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lost_events, "PATIENCE_SECONDS", 0.03)


class Api:
    """Lists names and versions; what is done before a list comes first."""

    def __init__(self) -> None:
        self.versions = {names.KIND: {"run": 10}, "Job": {"job": 10}, "Pod": {}}
        self.before_list: Callable[[str], Any] = lambda kind: None
        self.down = ""

    async def list_metadata(
        self, kind: str, namespace: str, labels: tuple[str, ...]
    ) -> AsyncIterator[dict[str, Any]]:
        assert labels == (() if kind == names.KIND else (names.RUN_UID_LABEL,))
        self.before_list(kind)
        if kind == self.down:
            raise Unreachable("away")
        for name, version in self.versions[kind].items():
            yield {
                "name": name,
                "resourceVersion": str(version),
                "labels": {names.RUN_LABEL: "run"},
            }


class Comparison:
    """A cache beside an API, and what a comparison of the two does."""

    def __init__(self, *namespaces: str) -> None:
        self.namespaces = namespaces or (TEAM,)
        self.api, self.cache = Api(), listed(*self.namespaces)
        self.due: list[RunKey] = []
        self.begun_anew = 0

    async def check(self) -> list[RunKey]:
        lost = LostEvents(
            self.api,  # type: ignore[arg-type]
            self.cache,
            lambda: self.namespaces,
            lambda key, delay: self.due.append(key),
            self._begin_anew,
        )
        await lost.check()
        return self.due

    def _begin_anew(self) -> None:
        self.begun_anew += 1


async def test_nothing_happens_while_the_watch_has_shown_all() -> None:
    both = Comparison()
    assert await both.check() == []
    assert not both.begun_anew
    assert jobs(both.cache) == ["job"]


@pytest.mark.parametrize(
    ("kind", "versions"),
    [
        (names.KIND, {"run": 11}),
        ("Job", {"job": 11}),
        ("Job", {"job": 10, "job-2": 11}),
        ("Job", {}),
        ("Pod", {"pod": 11}),
    ],
    ids=["changed run", "changed Job", "new Job", "deleted Job", "new pod"],
)
async def test_a_lost_event_makes_its_run_due_and_the_cache_is_not_believed(
    kind: str, versions: dict[str, int]
) -> None:
    both = Comparison()
    both.api.versions[kind] = versions
    assert await both.check() == [RunKey(TEAM, "run")]
    assert both.begun_anew == 1
    # A pass that believed what is shown of another kind would see half of the change.
    assert not any(both.cache.is_complete(known, TEAM) for known in WATCHED_KINDS)
    assert await both.check() == [RunKey(TEAM, "run")]  # one that is not believed is not compared


async def test_watches_that_begin_anew_are_not_compared() -> None:
    """They show nothing for a moment, and what changes then is not lost."""
    both = Comparison(TEAM, "team-b")
    both.api.versions["Job"] = {"job": 11}
    assert await both.check() == [RunKey(TEAM, "run")]
    assert both.begun_anew == 1
    assert both.cache.is_complete("Job", "team-b")


async def test_a_watch_that_is_a_moment_behind_has_lost_nothing() -> None:
    both = Comparison()
    both.api.versions["Job"] = {"job": 11, "job-2": 12}
    looks = 0
    shown = both.cache.shown

    def shown_later(kind: str, namespace: str) -> Any:
        nonlocal looks
        looks += kind == "Job"
        if looks == 3:
            ObjectCache.put(both.cache, "Job", TEAM, item("job", version=11))
            ObjectCache.put(both.cache, "Job", TEAM, item("job-2", version=12))
            looks += 1
        return shown(kind, namespace)

    both.cache.shown = shown_later  # type: ignore[method-assign]
    assert await both.check() == []
    assert looks >= 4
    assert not both.begun_anew


async def test_what_is_deleted_while_it_is_listed_was_not_lost() -> None:
    both = Comparison()
    both.api.before_list = lambda kind: kind == "Job" and both.cache.remove(kind, TEAM, "job")
    assert await both.check() == []
    assert jobs(both.cache) == []


async def test_a_kind_that_cannot_be_listed_costs_the_others_nothing() -> None:
    both = Comparison()
    both.api.down = WATCHED_KINDS[0]
    both.api.versions["Job"] = {"job": 11}
    assert await both.check() == [RunKey(TEAM, "run")]


@pytest.mark.api
async def test_the_names_and_versions_of_labelled_objects_are_listed(
    cluster: Cluster, namespace: str
) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "data": {}}
    for name, labels in (("with", {names.RUN_UID_LABEL: "uid"}), ("without", {})):
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        await cluster.create({**manifest, "metadata": metadata})
    labels = (names.RUN_UID_LABEL,)
    found = [item async for item in cluster.list_metadata("ConfigMap", namespace, labels)]
    assert [metadata["name"] for metadata in found] == ["with"]
    assert found[0]["resourceVersion"].isdigit()
