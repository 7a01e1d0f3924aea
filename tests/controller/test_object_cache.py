"""The cache answers what the watches have shown, and nothing where it may lack something."""

from typing import Any

import pytest

from flashrun.api import names
from flashrun.controller import object_cache
from flashrun.controller.object_cache import FRESH_SECONDS, ObjectCache
from flashrun.controller.queue import RunKey
from flashrun.controller.watched_objects import WATCHED_KINDS, WatchedObject
from tests.controller.clocks import Clock

TEAM = "team-a"
KEY = RunKey(TEAM, "run")
RUN_TEXT = b'{"metadata": {"name": "run"}, "spec": {}}'


def item(name: str = "run", **more: Any) -> WatchedObject:
    fields: dict[str, Any] = {
        "name": name,
        "uid": f"{name}-uid",
        "version": 10,
        "run_uid": "run-uid",
        "run_name": "run",
        "settled": False,
        "generation": 1,
        "text": RUN_TEXT if name == "run" else b'{"metadata": {"name": "%s"}}' % name.encode(),
    }
    return WatchedObject(**fields | more)


def listed(*namespaces: str, clock: Clock | None = None) -> ObjectCache:
    """A cache whose lists are complete at version 10; the first namespace has a run with a Job."""
    cache = ObjectCache(clock=clock or Clock())
    for namespace in namespaces or (TEAM,):
        for kind in WATCHED_KINDS:
            cache.begin_list(kind, namespace)
            if namespace == TEAM and kind == names.KIND:
                cache.put(kind, namespace, item())
            if namespace == TEAM and kind == "Job":
                cache.put(kind, namespace, item("job"))
            cache.end_list(kind, namespace, 10)
    return cache


def jobs(cache: ObjectCache) -> list[str] | None:
    found = cache.children("Job", TEAM, "run-uid")
    return None if found is None else [job["metadata"]["name"] for job in found]


def has_run(cache: ObjectCache) -> bool:
    return cache.run(KEY) is not None


def test_what_was_listed_and_watched_is_answered() -> None:
    cache = listed()
    assert has_run(cache)
    assert jobs(cache) == ["job"]
    assert cache.children("Pod", TEAM, "run-uid") == ()
    assert cache.put("Job", TEAM, item("job-2")) is None
    assert jobs(cache) == ["job", "job-2"]
    before = cache.put("Job", TEAM, item("job-2", version=12))
    assert before is not None
    assert before.version == 10
    cache.remove("Job", TEAM, "job")
    assert jobs(cache) == ["job-2"]


def test_a_run_is_as_this_process_wrote_it_in_that_version_alone() -> None:
    cache = listed()
    assert not cache.is_own_write(TEAM, item())
    cache.wrote(names.KIND, TEAM, "run-uid", {"resourceVersion": "12"})
    assert [cache.is_own_write(TEAM, item(version=v)) for v in (11, 12, 13)] == [
        False,
        True,
        False,
    ]
    cache.wrote(names.KIND, TEAM, "run-uid", {})
    assert not cache.is_own_write(TEAM, item(version=-1))


def test_before_a_list_is_complete_nothing_is_answered() -> None:
    cache = ObjectCache(clock=Clock())
    cache.begin_list("Job", TEAM)
    cache.put("Job", TEAM, item("job"))
    assert jobs(cache) is None
    cache.end_list("Job", TEAM, 10)
    assert jobs(cache) == ["job"]
    assert not cache.is_listed(TEAM)
    assert listed().is_listed(TEAM)


def test_what_another_list_does_not_show_is_gone() -> None:
    cache = listed()
    cache.put("Job", TEAM, item("job-2"))
    cache.begin_list("Job", TEAM)
    cache.put("Job", TEAM, item("job-2"))
    assert jobs(cache) is None
    cache.end_list("Job", TEAM, 20)
    assert jobs(cache) == ["job-2"]


def test_a_watch_that_is_silent_is_not_trusted() -> None:
    clock = Clock()
    cache = listed(clock=clock)
    clock.now = FRESH_SECONDS + 1
    assert jobs(cache) is None
    assert cache.longest_silence((TEAM,)) == FRESH_SECONDS + 1
    cache.advance("Job", TEAM, 30)
    assert jobs(cache) == ["job"]
    assert not has_run(cache)
    cache.opened(names.KIND, TEAM)
    assert has_run(cache)


def test_what_this_process_wrote_has_to_be_shown_first() -> None:
    cache = listed()
    cache.wrote("Job", TEAM, "run-uid", {"resourceVersion": "15"})
    assert jobs(cache) is None
    assert cache.children("Job", TEAM, "another-uid") == ()
    assert has_run(cache)
    cache.advance("Job", TEAM, 14)
    assert jobs(cache) is None
    cache.advance("Job", TEAM, 15)
    assert jobs(cache) == ["job"]
    cache.wrote(names.KIND, TEAM, "run-uid", {"resourceVersion": "not a number"})
    assert not has_run(cache)


def test_notes_about_own_writes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_cache, "WRITTEN_LIMIT", 5)
    cache = listed()
    for number in range(100):
        cache.wrote("Job", TEAM, f"uid-{number}", {"resourceVersion": "5"})
    cache.wrote("Job", TEAM, "run-uid", {"resourceVersion": "15"})
    assert len(cache._collection("Job", TEAM).written) <= 6
    assert jobs(cache) is None


def test_an_object_that_could_not_be_read_makes_its_namespace_and_kind_be_read() -> None:
    cache = listed(TEAM, "team-b")
    cache.distrust("Job", TEAM)
    assert jobs(cache) is None
    assert cache.children("Pod", TEAM, "run-uid") == ()
    assert cache.children("Job", "team-b", "run-uid") == ()
    cache.begin_list("Job", TEAM)
    cache.end_list("Job", TEAM, 20)
    assert jobs(cache) == []


def test_one_run_or_namespace_has_a_bounded_share_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(object_cache, "RUN_BYTES", 1_000)
    monkeypatch.setattr(object_cache, "NAMESPACE_BYTES", 2_000)
    cache = listed(TEAM, "team-b")
    text = b'{"metadata": {"name": "%s"}}' % (b"x" * 300)
    for number in range(5):
        cache.put("Job", TEAM, item(f"big-{number}", run_uid="big", text=text))
    assert cache.children("Job", TEAM, "big") is None
    assert jobs(cache) == ["job"]
    for number in range(20):
        cache.put("Pod", TEAM, item(f"pod-{number}", run_uid=f"uid-{number}", text=text))
    assert cache.children("Pod", TEAM, "uid-19") is None
    assert cache.children("Pod", TEAM, "uid-0") is not None
    cache.put("Pod", "team-b", item("pod", run_uid="big", text=text))
    assert cache.children("Pod", "team-b", "big") is not None
    for number in range(20):
        cache.remove("Pod", TEAM, f"pod-{number}")
    cache.put("Pod", TEAM, item("pod-19", run_uid="uid-19", text=text))
    assert cache.children("Pod", TEAM, "uid-19") is not None


def test_more_objects_than_are_kept_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_cache, "OBJECTS_LIMIT", 2)
    cache = listed()
    for name in ("job-2", "job-3", "job-4"):
        cache.put("Job", TEAM, item(name, run_uid="other"))
    assert jobs(cache) is None
    assert len(cache._collection("Job", TEAM).objects) == 2


def test_a_run_with_very_many_jobs_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_cache, "CHILDREN_LIMIT", 3)
    cache = listed()
    for number in range(4):
        cache.put("Job", TEAM, item(f"job-{number}"))
    assert jobs(cache) is None


def test_a_run_that_is_settled_is_due_only_for_its_jobs_and_pods() -> None:
    cache = listed()
    settled = {"settled": True, "text": None}
    cache.put(names.KIND, TEAM, item(**settled))
    assert cache.unsettled(TEAM) == (KEY,)
    cache.put("Job", TEAM, item("job", settled=True))
    assert cache.unsettled(TEAM) == ()
    cache.put("Pod", TEAM, item("pod", run_uid="of-a-run-that-is-gone"))
    assert cache.unsettled(TEAM) == ()
    assert cache.is_settled(KEY)
    assert cache.is_settled(KEY, "10")
    assert not cache.is_settled(KEY, "11")
    assert not cache.is_settled(RunKey(TEAM, "another"))
    cache.put(names.KIND, TEAM, item())
    assert cache.unsettled(TEAM) == (KEY,)


def test_namespaces_that_are_no_longer_watched_take_no_memory() -> None:
    cache = listed(TEAM, "team-b")
    cache.follow_namespaces(("team-b",))
    assert cache.run(KEY) is None
    assert not cache._used
    assert cache.is_listed("team-b")
