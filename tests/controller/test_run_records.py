"""Bounded reading of what one run wrote: limits, memory, and one sentence about each problem."""

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.records import Claim, FileEntry, Manifest, RunIdentity
from flashrun.controller import run_records
from flashrun.controller.run_records import NewestAttempts, RunRecords, Verdict
from flashrun.plan.commits import CommitMarker
from flashrun.plan.listed_folders import listed_checkpoints
from flashrun.store_errors import (
    Corrupt,
    KeyNotFound,
    StorageForbidden,
    StoreError,
    Unauthorized,
    Unavailable,
)
from flashrun.store_listing import Entry

NOW = datetime(2026, 1, 2, tzinfo=UTC)
IDENTITY = RunIdentity(namespace="team", name="run", uid="uid")
PREFIX = names.run_prefix("team", "run", "uid")
CLAIM = Claim(attempt=1, pod="pod-1", pod_uid="uid", started=NOW)


def entry(key: str, size: int = 100) -> Entry:
    return Entry(key, size, f"etag of {key}", NOW)


class RecordStore:
    """Stands in for the store: it returns or raises what it holds, and counts reads."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.reads: list[str] = []

    def list(self, prefix: str, recursive: bool) -> Iterator[Entry]:
        self.reads.append(f"list {prefix}")
        yield from (entry(key) for key in sorted(self.content) if key.startswith(prefix))

    def get_json(self, key: str, model: type) -> Any:
        self.reads.append(key)
        value = self.content.get(key, KeyNotFound(f"{key} does not exist"))
        if isinstance(value, Exception):
            raise value
        return value


def records(content: dict[str, Any], known: dict[bytes, Verdict] | None = None) -> RunRecords:
    store: Any = RecordStore(content)
    return RunRecords(store, known)


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
    assert [item.key for item in own.list("run/")] == ["run/0", "run/1"]
    assert own.too_many_files.startswith("More than 2 files are stored below run/")


def test_sizes_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "KEPT_LIMIT", 2)
    own = records({})
    assert own.sizes(entry(f"run/{number}") for number in range(2)) == {"run/0": 100, "run/1": 100}
    assert own.too_many_files == ""
    assert len(own.sizes(entry(f"run/{number}") for number in range(3))) == 2
    assert own.too_many_files.startswith("The adapter to start from has more than 2 files")


def test_the_newest_claims_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "CLAIMS_LIMIT", 2)
    claims = {f"p/attempt-{n}/claim.json": CLAIM.replace(attempt=n) for n in (3, 1, 2)}
    own, attempts = records(claims), NewestAttempts("p/")
    passed = list(attempts.pass_on(own.list("p/attempt-")))
    assert [item.key for item in passed] == sorted(claims)
    assert [claim.attempt for claim in own.claims(attempts)] == [2, 3]
    assert own.too_many_files == "Only the newest 2 attempts are read."


def test_a_claim_of_another_attempt_does_not_count() -> None:
    own, attempts = records({"p/attempt-2/claim.json": CLAIM}), NewestAttempts("p/")
    list(attempts.pass_on(own.list("p/attempt-")))
    assert own.claims(attempts) == ()
    assert (own.refused, own.too_many_files) == ("", "")


# --- manifests ----------------------------------------------------------------------------------

FILE = FileEntry(path="adapter/weights", size=100, sha256="0" * 64)


def manifest(step: int, **changes: Any) -> Manifest:
    return Manifest(
        kind="checkpoint", run=IDENTITY, attempt=1, step=step, created=NOW, files=(FILE,), **changes
    )


def stored(*steps: int) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for step in steps:
        folder = names.step_prefix(PREFIX, 1, step)
        content |= {folder + FILE.path: b"", folder + names.MANIFEST: manifest(step)}
    return content


def look(own: RunRecords) -> list[int]:
    """The steps of the run's checkpoints."""
    listing = own.list(names.attempts_prefix(PREFIX))
    commits = own.checkpoints(PREFIX, IDENTITY.uid, listed_checkpoints(PREFIX, listing))
    return [commit.step for commit in commits]


def reads(own: RunRecords) -> list[str]:
    store: Any = own._store
    return [key.removeprefix(PREFIX) for key in store.reads[1:]]


def test_manifests_are_read_once_and_the_newest_first() -> None:
    first = records(stored(5, 10))
    assert look(first) == [5, 10]
    assert reads(first) == ["attempt-1/step-10/manifest.json", "attempt-1/step-5/manifest.json"]
    second = records(stored(5, 10), first.verdicts)
    assert look(second) == [5, 10]
    assert reads(second) == []


def test_a_checkpoint_ends_with_a_file_of_it() -> None:
    before = records(stored(5, 10))
    look(before)
    content = stored(5, 10)
    del content[names.step_prefix(PREFIX, 1, 5) + FILE.path]
    assert look(records(content, before.verdicts)) == [10]


def test_a_file_that_no_manifest_lists_changes_nothing() -> None:
    folder = names.step_prefix(PREFIX, 1, 5)
    own = records({**stored(5), folder + "adapter/more": b""})
    assert look(own) == [5]
    assert reads(own) == ["attempt-1/step-5/manifest.json", f"list {folder}"]
    again = records({**stored(5), folder + "adapter/more": b""}, own.verdicts)
    assert (look(again), reads(again)) == ([5], [])


def test_the_state_of_a_checkpoint_comes_and_goes_unseen() -> None:
    before = records(stored(5))
    look(before)
    folder = names.step_prefix(PREFIX, 1, 5)
    state = {folder + "state/optimizer.pt": b"", folder + names.STATE_MANIFEST: b""}
    after = records(stored(5) | state, before.verdicts)
    assert (look(after), reads(after)) == ([5], [])


def test_a_manifest_that_was_not_there_is_read_again() -> None:
    content = stored(5)
    missing = content | {names.step_prefix(PREFIX, 1, 5) + names.MANIFEST: KeyNotFound("away")}
    own = records(missing)
    assert look(own) == []
    assert look(records(content, own.verdicts)) == [5]


def test_the_newest_checkpoints_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "MANIFESTS_LIMIT", 1)
    own = records(stored(5, 10))
    assert look(own) == [10]
    assert own.too_many_files == "The run has more than 1 checkpoints; older ones are ignored."


def test_what_one_look_may_not_read_the_next_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "MANIFEST_BYTES", 150)
    first = records(stored(5, 10))
    assert look(first) == [10]
    assert "are read later" in first.too_many_files
    second = records(stored(5, 10), first.verdicts)
    assert (look(second), second.too_many_files) == ([5, 10], "")


def test_a_manifest_that_is_too_long_is_not_read() -> None:
    [folder] = listed_checkpoints(PREFIX, records(stored(5)).list(PREFIX))
    own = records({})
    marker = CommitMarker("key", "uid", 1, 5)
    assert own.commit(marker, folder._replace(size=Manifest.max_bytes + 1)) is None
    assert "is longer than" in own.refused


def test_of_refused_manifests_one_says_why_and_still_does_in_the_next_look() -> None:
    content = {**stored(5, 10, 15)}
    for step in (5, 10):
        key = names.step_prefix(PREFIX, 1, step) + names.MANIFEST
        content[key] = Corrupt(f"step {step} is not valid")
    first = records(content)
    assert look(first) == [15]
    assert first.refused == "step 10 is not valid; it is ignored."
    assert sorted(filter(None, map(str, first.verdicts.values())))[-1] == "step 10 is not valid"
    assert sum(verdict == "" for verdict in first.verdicts.values()) == 1
    second = records(content, first.verdicts)
    assert (look(second), reads(second), second.refused) == ([15], [], first.refused)
    left = {key: value for key, value in content.items() if "step-10/" not in key}
    third = records(left, second.verdicts)
    assert look(third) == [15]
    assert third.refused.endswith("attempt-1/step-5/manifest.json is not a valid manifest; "
                                  "it is ignored.")  # fmt: skip


class HostileStore:
    """As many checkpoints as are listed, each with names and records as long as they may be."""

    def list(self, prefix: str, recursive: bool) -> Iterator[Entry]:
        padding = "x" * 900
        for number in range(run_records.LISTED_LIMIT // 3):
            folder = names.step_prefix(PREFIX, number, 900_000_000 + number)
            yield entry(names.claim_key(PREFIX, number), 60_000)
            yield entry(f"{folder}adapter/{padding}")
            yield entry(folder + names.MANIFEST, 1000)

    def get_json(self, key: str, model: type) -> Any:
        number = names.attempt_of(PREFIX, key)
        assert number is not None
        if model is Claim:
            pod, uid, node = (letter * 253 for letter in "abc")
            return Claim(attempt=number, pod=pod, pod_uid=uid, node=node, started=NOW)
        if number % 7 == 0:
            raise Corrupt(f"{key}{'x' * 2_000}")
        file = FILE.replace(path=f"adapter/{'x' * 900}")
        return manifest(900_000_000 + number).replace(attempt=number, files=(file,))


def test_what_stays_in_memory_of_one_run_is_less_than_a_megabyte() -> None:
    store: Any = HostileStore()
    known: dict[bytes, Verdict] = {}

    def read() -> Any:
        own, attempts = RunRecords(store, known), NewestAttempts(PREFIX)
        listing = attempts.pass_on(own.list(names.attempts_prefix(PREFIX)))
        checkpoints = own.checkpoints(PREFIX, IDENTITY.uid, listed_checkpoints(PREFIX, listing))
        return own.verdicts, checkpoints, own.claims(attempts), own.refused, own.too_many_files

    read()  # models are built at their first use
    tracemalloc.start()
    try:
        kept = read()
        first, peak = tracemalloc.get_traced_memory()
        known = kept[0]
        kept = read()
        known = kept[0]
        second, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    _, checkpoints, claims, *_ = kept
    assert len(checkpoints) == run_records.MANIFESTS_LIMIT * 6 // 7
    assert len(claims) == run_records.CLAIMS_LIMIT
    assert max(first, second) < 1024 * 1024
    assert peak < 2 * 1024 * 1024
