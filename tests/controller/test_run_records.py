"""Bounded reading of what one run wrote: limits, a cache, and one sentence about each problem."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from flashrun.api.records import Claim, Manifest
from flashrun.controller import run_records
from flashrun.controller.run_records import ManifestCache, RunRecords
from flashrun.plan.commits import CommitMarker
from flashrun.store import Entry
from flashrun.store_errors import (
    Corrupt,
    KeyNotFound,
    StorageForbidden,
    StoreError,
    Unauthorized,
    Unavailable,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CLAIM = Claim(attempt=1, pod="pod-1", pod_uid="uid", started=NOW)


def entry(key: str, size: int = 100) -> Entry:
    return Entry(key, size, f"etag of {key}", NOW)


class RecordStore:
    """Stands in for the store: it returns or raises what it holds, and counts reads."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.reads: list[str] = []

    def list(self, prefix: str, recursive: bool) -> Iterator[Entry]:
        yield from (entry(key) for key in sorted(self.content) if key.startswith(prefix))

    def get_json(self, key: str, model: type) -> Any:
        self.reads.append(key)
        value = self.content.get(key, KeyNotFound(f"{key} does not exist"))
        if isinstance(value, Exception):
            raise value
        return value


def records(content: dict[str, Any], cache: ManifestCache | None = None) -> RunRecords:
    store: Any = RecordStore(content)
    return RunRecords(store, cache or ManifestCache())


def test_a_record_is_read_and_a_missing_one_is_none() -> None:
    own = records({"claim": CLAIM})
    assert own.read("claim", Claim) == CLAIM
    assert own.read("other", Claim) is None
    assert own.refused == ""


@pytest.mark.parametrize("error", [Corrupt("claim is not a valid Claim"), ValueError("boom")])
def test_a_record_that_breaks_its_model_is_ignored_and_named(error: Exception) -> None:
    own = records({"claim": error})
    assert own.read("claim", Claim) is None
    assert own.refused.startswith("claim ")
    assert own.refused.endswith("; it is ignored.")


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("storage is away"),
        StorageForbidden("access was refused"),
        Unauthorized("the credentials have expired", temporary=True),
        StoreError("try again", temporary=True),
    ],
)
def test_a_problem_of_storage_itself_is_raised(error: StoreError) -> None:
    with pytest.raises(type(error)):
        records({"claim": error}).read("claim", Claim)


def test_keys_are_listed_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "LISTED_LIMIT", 2)
    own = records({f"run/{number}": b"" for number in range(3)})
    assert list(own.list_keys("run/")) == ["run/0", "run/1"]
    assert own.too_many_files.startswith("More than 2 files are stored below run/")


def test_the_newest_claims_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "CLAIMS_LIMIT", 2)
    own = records({})
    assert own.newest_claims([3, 1]) == [1, 3]
    assert own.too_many_files == ""
    assert own.newest_claims([3, 1, 2]) == [2, 3]
    assert own.too_many_files == "Only the newest 2 attempts are read."


def manifest(step: int) -> Manifest:
    return Manifest(kind="checkpoint", attempt=1, step=step, created=NOW, files=())


def markers(*steps: int) -> dict[CommitMarker, Manifest]:
    return {CommitMarker(f"step-{step}", "uid", 1, step): manifest(step) for step in steps}


def read_all(own: RunRecords, marked: dict[CommitMarker, Manifest]) -> list[Manifest | None]:
    entries = {marker.key: entry(marker.key) for marker in marked}
    return [manifest for _, manifest in own.manifests(marked, entries)]


def test_manifests_are_read_once_and_the_newest_first() -> None:
    marked = markers(5, 10)
    content = {marker.key: record for marker, record in marked.items()}
    cache = ManifestCache()
    assert read_all(records(content, cache), marked) == [manifest(10), manifest(5)]
    assert read_all(records({}, cache), marked) == [manifest(10), manifest(5)]
    cache.forget("uid")
    assert read_all(records({}, cache), marked) == [None, None]


def test_manifests_are_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "MANIFESTS_LIMIT", 1)
    marked = markers(5, 10)
    own = records({marker.key: record for marker, record in marked.items()})
    assert read_all(own, marked) == [manifest(10)]
    assert "older checkpoints are ignored" in own.too_many_files


def test_a_manifest_that_is_too_long_is_not_read() -> None:
    [marker] = markers(5)
    own = records({})
    size = Manifest.max_bytes + 1
    assert list(own.manifests([marker], {marker.key: entry(marker.key, size)})) == []
    assert "is longer than" in own.refused


def test_the_cache_forgets_runs_beyond_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "CACHED_BYTES", 250)
    cache = ManifestCache()
    for uid in ("a", "b", "c"):
        cache.keep(uid, entry("k"), manifest(1))
    assert cache.find("a", entry("k")) is None
    assert cache.find("c", entry("k")) == manifest(1)
    cache.forget_all_except({"b"})
    assert cache.find("c", entry("k")) is None
    assert cache.find("b", entry("k")) == manifest(1)
