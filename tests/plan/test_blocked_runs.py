"""Runs that a pass cannot act on: what their status says, and that it is written once."""

from datetime import timedelta

import pytest

from flashrun.api.reasons import TERMINAL, ConditionType, Phase, Reason
from flashrun.api.resource import ConditionStatus, FlashRunStatus
from flashrun.plan.blocked_runs import (
    blocked_status,
    unissued_access,
    unreadable_spec,
    unrecorded_ending,
    with_old_access,
)
from tests.plan import worlds
from tests.plan.worlds import NOW, World, make_run, running

MANIFEST = {"metadata": {"name": worlds.NAME, "uid": worlds.UID, "generation": 3}}


def test_a_refusal_of_the_cluster_leaves_the_phase_and_is_pending() -> None:
    run = running().run
    status = blocked_status(run, Reason.CLUSTER_REFUSES, "exceeded quota: none", NOW)

    assert status.phase is Phase.RUNNING
    assert status.pending is not None
    assert status.pending.reason is Reason.CLUSTER_REFUSES
    assert status.pending.message == "exceeded quota: none"
    ready = status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason is Reason.CLUSTER_REFUSES


def test_a_long_refusal_is_cut_and_the_same_refusal_is_not_another_status() -> None:
    run = make_run()
    first = blocked_status(run, Reason.CLUSTER_REFUSES, "x" * 5000, NOW)
    again = blocked_status(
        run.replace(status=first), Reason.CLUSTER_REFUSES, "x" * 5000, NOW + timedelta(minutes=1)
    )

    assert first.pending is not None
    assert len(first.pending.message) == 2048
    assert again == first


def test_a_sentence_of_another_program_is_cleaned_and_loses_its_secrets() -> None:
    said = "denied\x1b[31m\nbecause\u202e of hf_aBcDeFgHiJkLmNoPqRsTuV"
    status = blocked_status(make_run(), Reason.CLUSTER_REFUSES, said, NOW)

    assert status.pending is not None
    assert status.pending.message.isprintable()
    assert "hf_aBcD" not in status.pending.message
    assert status.pending.message.startswith("denied[31m because of ")


def test_the_next_pass_that_works_takes_a_refusal_away() -> None:
    world = World(make_run())
    status = blocked_status(world.run, Reason.CLUSTER_REFUSES, "exceeded quota", NOW)
    refused = world.run.replace(status=status)
    status = World(refused).decide().status

    assert status.pending is None
    assert status.phase is Phase.STARTING


def test_an_unreadable_spec_is_in_three_conditions_and_leaves_other_fields_alone() -> None:
    status = unreadable_spec(MANIFEST, ["spec.a: no", "spec.b: no"], NOW)

    assert status is not None
    assert status.keys() == {"observedGeneration", "phase", "conditions", "pending"}
    parsed = FlashRunStatus.validate_manifest(status)
    assert (parsed.phase, parsed.observed_generation) == (Phase.PENDING, 3)
    assert {item.type: item.status for item in parsed.conditions} == {
        ConditionType.ACCEPTED: ConditionStatus.FALSE,
        ConditionType.READY: ConditionStatus.FALSE,
        ConditionType.STALLED: ConditionStatus.TRUE,
    }
    assert {item.reason for item in parsed.conditions} == {Reason.SPEC_UNREADABLE}
    assert {item.last_transition_time for item in parsed.conditions} == {NOW}
    assert status["pending"]["message"].endswith("spec.a: no; spec.b: no")


def test_an_unreadable_spec_is_reported_once() -> None:
    status = unreadable_spec(MANIFEST, ["spec.a: no"], NOW)
    reported = {**MANIFEST, "status": status}

    assert unreadable_spec(reported, ["spec.a: no"], NOW + timedelta(minutes=1)) is None
    assert unreadable_spec(reported, ["spec.c: no"], NOW) is not None


def test_an_unreadable_spec_with_very_many_problems_is_reported_once_too() -> None:
    problems = [f"spec.field{number}: unknown" for number in range(500)]
    status = unreadable_spec(MANIFEST, problems, NOW)

    assert unreadable_spec({**MANIFEST, "status": status}, problems, NOW) is None


@pytest.mark.parametrize("phase", list(Phase))
def test_a_run_with_an_unreadable_spec_keeps_its_phase(phase: Phase) -> None:
    status = unreadable_spec({**MANIFEST, "status": {"phase": phase}}, ["spec.a: no"], NOW)

    if phase in TERMINAL:
        assert status is None
    else:
        assert status is not None
        assert status["phase"] == phase


def test_a_run_whose_end_cannot_be_recorded_has_not_ended() -> None:
    status = unrecorded_ending(running().run, "storage is full", NOW)

    assert status.phase is Phase.RUNNING
    assert status.completion_time is None
    assert status.pending is not None
    assert status.pending.reason is Reason.STORAGE_UNAVAILABLE
    assert status.pending.message == "The end of the run cannot be recorded: storage is full"


def test_a_run_that_gets_no_credentials_for_its_first_job_is_pending() -> None:
    status = unissued_access(make_run(), "AssumeRole is refused", NOW)

    assert status.phase is Phase.PENDING
    assert status.pending is not None
    assert status.pending.reason is Reason.STORAGE_UNAVAILABLE
    access = status.condition(ConditionType.STORAGE_ACCESS)
    assert access is not None
    assert access.status is ConditionStatus.FALSE
    assert access.message.endswith("AssumeRole is refused")


def test_a_renewal_that_fails_is_a_condition_with_the_time_that_is_left() -> None:
    world = running()
    status = with_old_access(world.decide().status, world.run, "no answer", NOW)

    assert (status.phase, status.pending) == (Phase.RUNNING, None)
    access = status.condition(ConditionType.STORAGE_ACCESS)
    assert access is not None
    assert (access.status, access.reason) == (ConditionStatus.FALSE, Reason.STORAGE_UNAVAILABLE)
    assert access.message == (
        "The storage credentials cannot be renewed; the present ones expire at "
        "2026-11-23T00:00:00Z: no answer"
    )
    later = World(world.run.replace(status=status), world.observed).later(seconds=30)
    again = with_old_access(later.decide().status, later.run, "no answer", later.now)
    assert again.condition(ConditionType.STORAGE_ACCESS) == access
