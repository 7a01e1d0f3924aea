"""Which checkpoints and adapters count, and which of several with the same name is the newest."""

from datetime import timedelta

import pytest

from flashrun.api import names
from flashrun.api.records import Manifest, RunIdentity
from flashrun.plan.commits import (
    Commit,
    CommitMarker,
    CommitSummary,
    committed,
    find_markers,
    find_markers_by_name,
    newest_adapter,
    newest_by_step,
)
from tests.plan.worlds import ADAPTER, IDENTITY, NAME, NAMESPACE, NOW, UID, checkpoint

PREFIX = names.run_prefix(NAMESPACE, NAME, UID)
FILE = "adapter/adapter_model.safetensors"


def marker(step: int | None = None, attempt: int = 1, uid: str = UID) -> CommitMarker:
    prefix = names.run_prefix(NAMESPACE, NAME, uid)
    if step is None:
        return CommitMarker(names.adapter_prefix(prefix) + names.MANIFEST, uid)
    folder = names.step_prefix(prefix, attempt, step)
    return CommitMarker(folder + names.MANIFEST, uid, attempt, step)


def commit(step: int, attempt: int = 1, uid: str = UID, minutes: float = 0) -> Commit:
    identity = RunIdentity(namespace=NAMESPACE, name=NAME, uid=uid)
    created = NOW + timedelta(minutes=minutes)
    return Commit(
        marker(step, attempt, uid), checkpoint(step, attempt, run=identity, created=created)
    )


def test_markers_are_found_among_the_keys_of_a_run() -> None:
    step, final = marker(20, attempt=2), marker()
    keys = [
        step.key,
        step.prefix + FILE,
        final.key,
        final.prefix + FILE,
        names.result_key(PREFIX),
        marker(20, uid="other").key,
    ]

    assert list(find_markers(PREFIX, UID, keys)) == [step, final]


def test_markers_of_all_runs_of_a_name_are_found() -> None:
    markers = [marker(20), marker(), marker(20, uid="older"), marker(uid="older")]
    keys = [*(item.key for item in markers), names.run_name_prefix(NAMESPACE, "another") + "u/x"]

    assert list(find_markers_by_name(NAMESPACE, NAME, keys)) == markers


CANDIDATES = [
    ("a whole checkpoint", marker(20), checkpoint(20), 1000, True),
    ("a whole adapter", marker(), ADAPTER, 1000, True),
    ("its manifest cannot be read", marker(20), None, 1000, False),
    ("a file is missing", marker(20), checkpoint(20), None, False),
    ("a file has another size", marker(20), checkpoint(20), 999, False),
    ("a manifest of another step", marker(20), checkpoint(10), 1000, False),
    ("a manifest of another attempt", marker(20), checkpoint(20, attempt=2), 1000, False),
    ("a manifest of another run", marker(20),
     checkpoint(20, run=IDENTITY.replace(uid="other")), 1000, False),
    ("an adapter where a checkpoint lies", marker(20),
     checkpoint(20, kind="adapter"), 1000, False),
    ("a checkpoint where the adapter lies", marker(), checkpoint(40), 1000, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "manifest", "size", "whole"),
    [row[1:] for row in CANDIDATES],
    ids=[row[0] for row in CANDIDATES],
)
def test_only_what_is_whole_and_in_its_place_is_committed(
    place: CommitMarker, manifest: Manifest | None, size: int | None, whole: bool
) -> None:
    sizes = {place.prefix + FILE: size}
    assert len(list(committed([(place, manifest)], sizes.get))) == whole


def test_of_one_step_the_newest_attempt_counts_also_when_an_older_one_wrote_later() -> None:
    commits = [commit(20, attempt=2), commit(10, attempt=1), commit(20, attempt=1, minutes=5)]

    newest = newest_by_step(CommitSummary.of(item.manifest) for item in commits)
    assert [(checkpoint.step, checkpoint.attempt) for checkpoint in newest] == [(10, 1), (20, 2)]


ADAPTERS = [
    ("there is none", [], None),
    ("there is one", [commit(20)], (UID, 1)),
    ("of one run, the newest attempt's counts, also when an older one wrote later",
     [commit(20, attempt=1, minutes=5), commit(20, attempt=2)], (UID, 2)),
    ("of several runs, the one created last counts",
     [commit(20, uid="older", minutes=-60), commit(20)], (UID, 1)),
    ("the number of an attempt says nothing between runs",
     [commit(20, attempt=7, uid="older", minutes=-60), commit(20, attempt=1)], (UID, 1)),
    ("runs are compared by the attempts that count",
     [commit(20, attempt=1, uid="older", minutes=60),
      commit(20, attempt=2, uid="older", minutes=-60), commit(20)], (UID, 1)),
    ("equal times are ordered by the uid", [commit(20, uid="a"), commit(20, uid="b")], ("b", 1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("commits", "expected"), [row[1:] for row in ADAPTERS], ids=[row[0] for row in ADAPTERS]
)
@pytest.mark.parametrize("order", [1, -1], ids=["listed in order", "listed in reverse"])
def test_one_adapter_has_the_name(commits, expected, order) -> None:
    newest = newest_adapter(commits[::order])

    assert (newest and (newest.marker.uid, newest.marker.attempt)) == expected
