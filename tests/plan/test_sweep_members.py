"""The runs of a sweep as one of them sees them."""

from typing import Any

import pytest

from flashrun.api.sweep import StopWorse
from flashrun.plan.sweep_members import (
    Standing,
    SweepMember,
    better_runs,
    goes_on,
    may_begin,
    read_member,
)

BEGUN = {"resolved": {"environmentDigest": "d"}}


def member(name: str, standing: Standing, **scores: Any) -> SweepMember:
    return SweepMember(name, name, f"2026-01-01T00:00:0{len(name)}Z", standing, **scores)


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        ({}, Standing.WAITS),
        ({"phase": "Pending", "pending": {"reason": "Unseen"}}, Standing.WAITS),
        ({"phase": "Pending", "pending": {"reason": "SweepLimit"}}, Standing.WAITS),
        ({"phase": "Pending", "pending": {"reason": "SecretMissing"}}, Standing.WAITS_ELSEWHERE),
        ({"phase": "Pending", **BEGUN}, Standing.RUNS),
        ({"phase": "Retrying", **BEGUN}, Standing.RUNS),
        ({"phase": "Cancelling", **BEGUN}, Standing.RUNS),
        ({"phase": "Suspended", **BEGUN}, Standing.PAUSED),
        ({"phase": "Suspended"}, Standing.PAUSED),
        ({"phase": "Failed", **BEGUN}, Standing.ENDED),
        ({"phase": "Succeeded", **BEGUN}, Standing.ENDED),
        ({"phase": "Cancelled"}, Standing.ENDED),
    ],
)
def test_what_a_run_does_in_its_sweep_follows_from_its_status(
    status: dict[str, Any], standing: Standing
) -> None:
    metadata = {"name": "a", "uid": "a"}
    assert read_member({"metadata": metadata, "status": status}).standing is standing


def test_a_deleted_run_holds_its_place_until_its_pods_are_gone() -> None:
    metadata = {"name": "a", "uid": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    running, waiting = {"phase": "Running", **BEGUN}, {"phase": "Pending"}
    assert read_member({"metadata": metadata, "status": running}).standing is Standing.RUNS
    assert read_member({"metadata": metadata, "status": waiting}).standing is Standing.ENDED


def test_scores_that_are_not_numbers_do_not_count() -> None:
    rungs = [{"rung": 1, "score": "0"}, {"rung": 2, "score": "?"}]
    status = {"sweep": {"rungs": rungs}, "evaluation": {"metric": "loss"}}
    found = read_member({"metadata": {"name": "a", "uid": "a"}, "status": status})
    assert (found.metric, found.scores) == ("loss", {1: 0.0})


WAITING = [member("a" * length, Standing.WAITS) for length in (1, 2, 3)]


def test_as_many_waiting_runs_begin_as_places_are_free_the_oldest_first() -> None:
    begins = [may_begin(item.uid, WAITING, limit=2) for item in WAITING]
    assert begins == [True, True, False]
    one_runs = [member("b", Standing.RUNS), *WAITING]
    assert [may_begin(item.uid, one_runs, 2) for item in WAITING] == [True, False, False]
    assert [may_begin(item.uid, one_runs, 1) for item in WAITING] == [False, False, False]


def test_runs_that_have_ended_or_are_paused_hold_no_place() -> None:
    others = [member("b", Standing.ENDED), member("c", Standing.PAUSED), *WAITING]
    assert may_begin("a", others, limit=1)


def test_a_run_that_waits_for_something_else_lets_others_go_first() -> None:
    blocked = member("b", Standing.WAITS_ELSEWHERE)
    assert may_begin("aaa", [blocked, WAITING[2]], limit=1)
    assert not may_begin("b", [blocked, WAITING[2]], limit=1)
    assert may_begin("b", [blocked, WAITING[2]], limit=2)


def test_a_run_that_was_just_started_holds_a_place_whatever_its_status_shows() -> None:
    assert not may_begin("aa", WAITING, limit=1, launched={"a"})
    assert may_begin("aa", WAITING, limit=2, launched={"a"})
    assert not may_begin("aaa", WAITING, limit=2, launched={"a"})
    # One that began out of its turn, because it had waited for something else before:
    assert not may_begin("a", WAITING, limit=1, launched={"aaa"})


def test_a_run_that_is_not_listed_yet_is_the_last_one() -> None:
    assert not may_begin("new", WAITING, limit=3)
    assert may_begin("new", WAITING, limit=4)


def test_no_order_of_passes_begins_more_runs_than_may_run() -> None:
    for first in range(3):
        members = list(WAITING)
        for index in (first, (first + 1) % 3, (first + 2) % 3):
            if may_begin(members[index].uid, members, limit=2):
                members[index] = member(members[index].name, Standing.RUNS)
        assert sum(item.standing is Standing.RUNS for item in members) == 2


SCORED = [
    member("a", Standing.RUNS, metric="score", scores={10: 0.5, 20: 0.6}),
    member("b", Standing.ENDED, metric="score", scores={10: 0.7}),
    member("c", Standing.RUNS, metric="loss", scores={10: 0.9}),
    member("d", Standing.WAITS),
]


def test_a_run_is_compared_at_its_highest_rung_with_runs_of_the_same_metric() -> None:
    assert better_runs("x", "score", {10: 0.6}, SCORED) == (10, 1, 3)
    assert better_runs("a", "score", SCORED[0].scores, SCORED) == (20, 0, 1)
    assert better_runs("x", "score", {}, SCORED) is None


def test_of_a_loss_less_is_better() -> None:
    assert better_runs("x", "loss", {10: 1.0}, SCORED) == (10, 1, 2)
    assert better_runs("x", "loss", {10: 0.8}, SCORED) == (10, 0, 2)


@pytest.mark.parametrize(
    ("factor", "better", "reached", "on"),
    [
        (2, 0, 1, True),
        (2, 0, 2, True),
        (2, 1, 2, False),
        (2, 1, 3, True),
        (2, 2, 3, False),
        (3, 1, 3, False),
        (3, 1, 4, True),
    ],
)
def test_one_run_in_so_many_goes_on_rounded_up(
    factor: int, better: int, reached: int, on: bool
) -> None:
    assert goes_on(StopWorse(first_step=1, factor=factor), better, reached) is on
