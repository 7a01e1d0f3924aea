"""What servers may lack: each fault is found before the first run, and named with the way out."""

import time
from datetime import timedelta
from typing import Any

import pytest

from flashrun import store_probe
from flashrun.api import names
from flashrun.plan.storage_policies import namespace_policy
from flashrun.store import Store, TimeLimits
from flashrun.store_errors import StorageForbidden, StoreError, Unavailable, Unsuitable
from flashrun.store_probe import Property, StoreProbe, keys_outside_are_refused
from tests.store.small_s3 import Fault, SmallS3, small_s3

PREFIX = names.operator_probe_prefix("installation")


def findings(store: Store, *, sts: bool = True) -> dict[Property, str]:
    issue = (lambda policy: store.assume(policy, 900)) if sts else None
    return dict(StoreProbe(store, PREFIX).examine(issue))


def require(s3: SmallS3) -> None:
    store = Store(s3.access)
    StoreProbe(store, PREFIX).require(lambda policy: store.assume(policy, 900))


def test_a_store_that_does_everything_passes_and_keeps_nothing(store: Store) -> None:
    """MinIO; ``small_s3`` below has to do the same."""
    assert findings(store) == dict.fromkeys(Property, "")
    assert list(store.list("")) == []


def test_the_small_server_without_a_fault_passes() -> None:
    with small_s3() as s3:
        assert findings(Store(s3.access)) == dict.fromkeys(Property, "")
        assert s3.objects == {}


FAULTS = [
    (Fault.OVERWRITES, Property.CONDITIONAL, "overwrites an object in spite of If-None-Match: *"),
    (Fault.REFUSES_CONDITIONS, Property.CONDITIONAL, "NotImplemented"),
    (Fault.ANSWERS_409, Property.CONDITIONAL, "answers 409 to If-None-Match: *"),
    (Fault.CHECKS_BEFORE_WRITING, Property.RACE, "succeed instead of one"),
    (Fault.LISTS_LATE, Property.LISTING, "does not show what was written before it"),
    (Fault.LISTS_DELETED, Property.LISTING, "shows what was deleted before it"),
    (Fault.REFUSES_PARTS, Property.MULTIPART, "NotImplemented"),
    (Fault.MIXES_PARTS, Property.MULTIPART, "read back with other content"),
    *[
        (fault, Property.SESSION, "set storage.sts=false for a store without STS")
        for fault in Fault
        if fault.name.startswith("STS_")
    ],
    (Fault.KEYS_NOT_ACCEPTED, Property.SESSION, "set storage.sts=false"),
    (Fault.UNLIMITED_KEYS, Property.LIMITS, "credentials of one run can write objects of others"),
    (Fault.READS_EVERYTHING, Property.LIMITS, "can read objects of others"),
    (Fault.LISTS_EVERYTHING, Property.LIMITS, "can list objects of others"),
]


@pytest.mark.parametrize(
    ("fault", "of", "words"), FAULTS, ids=[fault.name.lower() for fault, *_ in FAULTS]
)
def test_each_fault_is_found_in_its_property(fault: Fault, of: Property, words: str) -> None:
    with small_s3(fault) as s3:
        found = findings(Store(s3.access))
        assert words in found[of]
        assert "\n" not in found[of]
        before = list(Property)[: list(Property).index(of)]
        assert [found[item] for item in before] == [""] * len(before)


AS_IF_AWAY = [Fault.NO_STS_500, Fault.NO_STS_503]
"""What stores answer whose STS nobody has set up: it may also be away for a while."""


@pytest.mark.parametrize("fault", AS_IF_AWAY)
def test_a_store_whose_sts_seems_to_be_away_is_tried_again_and_told_what_may_be_wrong(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib3.util.retry.time.sleep", lambda _: None)
    with small_s3(fault) as s3:
        with pytest.raises(Unavailable) as away:
            require(s3)
        assert away.value.temporary
        assert "storage answers, but not when it is asked for credentials" in str(away.value)
        assert "storage.sts=false" in str(away.value)
        assert s3.objects == {}


def test_every_fault_is_tried() -> None:
    assert {*(fault for fault, *_ in FAULTS), *AS_IF_AWAY} == set(Fault)


@pytest.mark.parametrize("fault", [Fault.OVERWRITES, Fault.UNLIMITED_KEYS, Fault.STS_405])
def test_what_was_written_is_deleted_when_something_is_missing(fault: Fault) -> None:
    with small_s3(fault) as s3:
        with pytest.raises(Unsuitable) as refused:
            require(s3)
        assert s3.objects == {}
        place = f"storage {s3.url}/bucket (SmallS3/1.0) cannot be used: "
        assert str(refused.value).startswith(place)


def test_without_sts_a_store_that_has_none_passes() -> None:
    with small_s3(Fault.STS_405, Fault.UNLIMITED_KEYS) as s3:
        found = findings(Store(s3.access), sts=False)
        assert found == dict.fromkeys(list(Property)[:5], "")


def test_nothing_is_written_but_below_its_own_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: set[str] = set()

    class Remembering(dict[str, bytes]):
        def __setitem__(self, key: str, value: bytes) -> None:
            keys.add(key)
            super().__setitem__(key, value)

    with small_s3() as s3:
        s3.objects = Remembering()
        require(s3)
    assert keys
    assert all(key.startswith(PREFIX) for key in keys)


def test_what_a_killed_probe_left_is_deleted_after_an_hour(store: Store) -> None:
    store.put_bytes(f"{PREFIX}left/file", b"1")
    findings(store)
    assert [entry.key for entry in store.list("")] == [f"{PREFIX}left/file"]  # it may still run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_probe, "LEFT_AFTER", timedelta(seconds=-5))
        findings(store)
    assert list(store.list("")) == []


def test_a_store_that_is_away_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_probe, "CALL_LIMITS", TimeLimits(total=0.1))
    with small_s3() as s3:
        access = s3.access
    with pytest.raises(Unavailable, match="the connection was refused"):
        StoreProbe(Store(access), PREFIX).require()


def test_a_slow_store_is_left_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_probe, "PROBE_SECONDS", 0.05)
    with small_s3() as s3:
        slow = Store(s3.access)
        probe = StoreProbe(slow, PREFIX)
        original: Any = probe._check_listing
        monkeypatch.setattr(probe, "_check_listing", lambda: (time.sleep(0.1), original())[1])
        with pytest.raises(Unavailable, match="took longer than"):
            probe.require()
        assert s3.objects == {}


# --- people of a namespace ----------------------------------------------------------------------


@pytest.fixture
def person(store: Store) -> Store:
    return Store(store.assume(namespace_policy(store.access.bucket_arn, "team-a", ["team-a"]), 900))


def test_people_try_storage_with_their_own_rights(person: Store, store: Store) -> None:
    StoreProbe(person, names.namespace_probe_prefix("team-a")).require()
    assert list(store.list("")) == []
    with pytest.raises(StoreError):
        StoreProbe(person, names.namespace_probe_prefix("team-b")).require()


def test_credentials_of_people_that_reach_others_are_a_problem(person: Store, store: Store) -> None:
    foreign = names.namespace_probe_prefix("-")
    assert keys_outside_are_refused(person, foreign) == ""
    assert "can list what belongs to others" in keys_outside_are_refused(store, foreign)
    with pytest.raises(StorageForbidden):
        person.put_bytes(f"{foreign}x", b"")
