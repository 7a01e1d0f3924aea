"""What is kept of FlashRuns, Jobs and pods that a list or a watch shows."""

import json
from typing import Any

import pytest
from msgspec import Raw

from flashrun.api import names
from flashrun.api.resource import FlashRun
from flashrun.cluster_errors import TooLarge
from flashrun.controller.watched_objects import (
    KEPT_BYTES,
    UNREADABLE,
    read_text,
    version_number,
    watched_object,
)
from tests.controller.stage import Object, flash_run

RUN = "flash-1-0a1b2c3d"
LABELS = {names.RUN_LABEL: RUN, names.RUN_UID_LABEL: "run-uid"}
MANAGED = [{"manager": "m", "fieldsV1": {"f:spec": {f"f:{n}": {} for n in range(50)}}}]


def metadata(name: str = RUN, **more: Any) -> Object:
    return {
        "name": name,
        "namespace": "team",
        "uid": "uid",
        "resourceVersion": "17",
        "generation": 1,
        "creationTimestamp": "2026-11-01T10:00:00Z",
        "managedFields": MANAGED,
        **more,
    }


def raw(item: Object) -> Raw:
    return Raw(json.dumps(item).encode())


def run_of(status: Object | None = None, **more: Any) -> Object:
    run = flash_run("team", RUN) | {"metadata": metadata(**more)}
    return run if status is None else run | {"status": status}


def test_a_run_is_kept_with_all_that_a_pass_reads_and_without_managed_fields() -> None:
    run = run_of({"phase": "Starting", "startTime": "2026-11-01T10:00:00Z"})
    item = watched_object(names.KIND, raw(run))
    assert item.text is not None
    assert (item.name, item.uid, item.run_uid, item.run_name) == (RUN, "uid", "uid", RUN)
    assert (item.version, item.settled) == (17, False)
    assert b"managedFields" not in item.text
    kept = read_text(names.KIND, item.text)
    assert FlashRun.from_manifest(kept) == FlashRun.from_manifest(run)
    assert kept["metadata"]["resourceVersion"] == "17"


ENDED = {"phase": "Succeeded", "observedGeneration": 1}
SETTLED = [
    (run_of(ENDED), True),
    (run_of(ENDED | {"phase": "Running"}), False),
    (run_of(ENDED, generation=2), False),
    (run_of(ENDED, deletionTimestamp="2026-11-01T11:00:00Z"), False),
    (run_of(), False),
]


@pytest.mark.parametrize(("run", "settled"), SETTLED)
def test_only_a_run_that_has_ended_and_says_so_is_settled(run: Object, settled: bool) -> None:
    item = watched_object(names.KIND, raw(run))
    assert item.settled is settled
    assert (item.text is None) is settled


def test_what_is_too_large_has_no_text() -> None:
    large = run_of()
    large["spec"]["environment"]["params"] = {"a": "x" * KEPT_BYTES}
    item = watched_object(names.KIND, raw(large))
    assert (item.name, item.text) == (RUN, None)


def test_a_run_without_its_spec_has_no_text() -> None:
    """A watch leaves out a spec that is nested too deeply."""
    item = watched_object(names.KIND, raw({"metadata": metadata()}))
    assert (item.name, item.settled, item.text) == (RUN, False, None)


FINISHED = {"conditions": [{"type": "Complete", "status": "True"}]}
CHILDREN = [
    ("Job", {"spec": {}, "status": {}}, False),
    ("Job", {"spec": {}, "status": FINISHED}, False),
    ("Job", {"spec": {"ttlSecondsAfterFinished": 0}, "status": FINISHED}, True),
    ("Pod", {"spec": {"containers": []}, "status": {"phase": "Running"}}, False),
    ("Pod", {"spec": {"containers": []}, "status": {"phase": "Failed"}}, True),
]


@pytest.mark.parametrize(("kind", "rest", "settled"), CHILDREN)
def test_jobs_and_pods_belong_to_a_run_by_their_labels(
    kind: str, rest: Object, settled: bool
) -> None:
    item = watched_object(kind, raw({"metadata": metadata("child", labels=LABELS), **rest}))
    assert (item.name, item.run_name, item.run_uid) == ("child", RUN, "run-uid")
    assert item.settled is settled
    assert item.text is not None
    assert read_text(kind, item.text)["kind"] == kind


def test_an_object_that_is_not_one_is_refused_and_nothing_else_is_raised() -> None:
    for text in (b"[]", b"{}", b'{"metadata": 1}', b"[" * 100_000):
        with pytest.raises(UNREADABLE):
            watched_object("Job", Raw(text))


def test_a_text_is_read_within_the_bounds_of_answers() -> None:
    with pytest.raises(TooLarge, match="values"):
        read_text(names.KIND, json.dumps(run_of() | {"spec": {"a": [0] * 17_000}}).encode())


def test_versions_are_numbers_and_others_come_before_all() -> None:
    assert [version_number(text) for text in ("17", "", None, "x", "²", "-1")] == [
        17, -1, -1, -1, -1, -1,
    ]  # fmt: skip
