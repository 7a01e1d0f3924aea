"""The start of a run: its stages, by the times of several clocks."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

import pytest

from flashrun.api.reasons import Phase
from flashrun.api.records import MetricsRow
from flashrun.api.resource import (
    AttemptStatus,
    CheckpointStatus,
    FailureStatus,
    FlashRunStatus,
    ProgressStatus,
)
from flashrun.plan.run_start import RunStart, StartStage, run_start, with_first_row
from flashrun.plan.types import Observed
from tests.plan.worlds import NOW, UID, make_run

CREATED = NOW - timedelta(minutes=1)  # of make_run
LATER = NOW + timedelta(hours=2)


def at(seconds: float) -> datetime:
    return CREATED + timedelta(seconds=seconds)


def text(seconds: float) -> str:
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(seconds: float) -> dict[str, Any]:
    return {"metadata": {"name": "job", "creationTimestamp": text(seconds)}}


def container(name: str, begin: float, end: float | None = None) -> dict[str, Any]:
    state: dict[str, Any] = {"running": {"startedAt": text(begin)}}
    if end is not None:
        state = {"terminated": {"startedAt": text(begin), "finishedAt": text(end)}}
    return {"name": name, "state": state}


POD = {
    "metadata": {"name": "pod-2", "creationTimestamp": text(20)},
    "status": {
        "startTime": text(31),
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": text(30)}],
        "initContainerStatuses": [container("model", 70, 100), container("packages", 101, 110)],
        "containerStatuses": [container("proxy", 60), container("trainer", 112)],
    },
}
FIRST = AttemptStatus(
    number=1, pod="pod-1", held_from=at(6), start=at(8), end=at(15), reason="NodeLost"
)
SECOND = AttemptStatus(number=2, pod="pod-2", held_from=at(31), start=at(112))
STARTING = FlashRunStatus(phase=Phase.RUNNING, attempts=(FIRST, SECOND))
STEPPED = STARTING.replace(
    progress=ProgressStatus(step=1, total_steps=9, percent=11, updated_time=at(190))
)
OBSERVED = Observed(jobs=(job(5),), pods=(POD,))
ROW = MetricsRow(
    step=1, attempt=2, time=at(180),
    values={
        "loss": 1.0, "seconds/step": 20.0, "startup/model": 30.0, "startup/imports": 8.0,
        "startup/loading": 25.0, "startup/first_step": 20.0,
    },
)  # fmt: skip


def start(before: FlashRunStatus, after: FlashRunStatus, observed: Observed = OBSERVED) -> RunStart:
    found = run_start(make_run(status=before), after, observed, LATER)
    assert found is not None
    return found


def spans(found: RunStart) -> list[tuple[str, float, float]]:
    def since(moment: datetime) -> float:
        return (moment - CREATED).total_seconds()

    return [(str(span.stage), since(span.begin), since(span.end)) for span in found.spans]


BEFORE_THE_TRAINER = [
    ("submitted", 0, 5),
    ("earlier attempt", 6, 15),
    ("queued", 15, 20),
    ("scheduling", 20, 30),
    ("image", 30, 70),
    ("download", 70, 100),
    ("packages", 101, 110),
]


def test_a_start_has_a_span_for_each_stage() -> None:
    found = start(STARTING, STEPPED)
    assert spans(found) == [*BEFORE_THE_TRAINER, ("trainer", 112, 190)]
    assert spans(with_first_row(found, ROW)) == [
        *BEFORE_THE_TRAINER,
        ("imports", 112, 120),
        ("loading", 120, 145),
        ("evaluation", 145, 160),
        ("first step", 160, 180),
    ]
    assert [span.reason for span in found.spans if span.reason] == ["NodeLost"]
    assert (found.reason, found.attempt) == ("", 2)


def test_ids_depend_on_the_uid_alone() -> None:
    found = start(STARTING, STEPPED)
    assert found.trace_id == hashlib.sha256(UID.encode()).hexdigest()[:32]
    ids = [found.span_id(number) for number in range(10)]
    assert len(set(ids)) == 10
    assert ids == [start(FlashRunStatus(), STEPPED, Observed()).span_id(n) for n in range(10)]


def test_a_run_that_did_no_step_ends_its_start_with_its_end() -> None:
    failure = FailureStatus(reason="ModelUnavailable", message="secret words of a user")
    ended = STARTING.replace(phase=Phase.FAILED, failure=failure, completion_time=at(50))
    found = start(STARTING, ended, Observed(jobs=(job(5),)))
    assert (found.phase, found.reason, found.end) == ("Failed", "ModelUnavailable", at(50))
    assert [stage for stage, _, _ in spans(found)] == [
        "submitted", "earlier attempt", "queued", "earlier attempt",
    ]  # fmt: skip
    cancelled = start(FlashRunStatus(), FlashRunStatus(phase=Phase.CANCELLED), Observed())
    assert cancelled.reason == "Cancelled"
    assert [stage for stage, _, _ in spans(cancelled)] == ["submitted"]


def test_a_container_that_could_not_start_has_no_span() -> None:
    """Its kubelet dates its start to the beginning of 1970, and only its end to when it was."""
    refused = {
        "name": "trainer",
        "state": {
            "terminated": {"startedAt": "1970-01-01T00:00:00Z", "finishedAt": text(112)},
        },
    }
    pod = {**POD, "status": {**POD["status"], "containerStatuses": [refused]}}
    ended = STARTING.replace(phase=Phase.FAILED, completion_time=at(120))
    assert (
        spans(start(STARTING, ended, Observed(jobs=(job(5),), pods=(pod,)))) == BEFORE_THE_TRAINER
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (STARTING, STARTING),
        (STEPPED, STEPPED.replace(phase=Phase.SUCCEEDED)),
        (STARTING.replace(checkpoint_count=1), STEPPED),
        (FlashRunStatus(phase=Phase.FAILED), FlashRunStatus(phase=Phase.FAILED, gpu_seconds=1)),
    ],
    ids=["no step yet", "it has stepped before", "it had checkpoints", "it has ended before"],
)
def test_only_the_first_status_that_shows_the_start_counts(
    before: FlashRunStatus, after: FlashRunStatus
) -> None:
    assert run_start(make_run(status=before), after, OBSERVED, LATER) is None


def test_a_checkpoint_that_is_seen_before_a_step_ends_the_start() -> None:
    saved = CheckpointStatus(ref="run/step-1", step=1, bytes=9, created_time=at(40))
    found = start(STARTING, STARTING.replace(checkpoints=(saved,), checkpoint_count=1))
    assert (found.end, found.reason) == (at(40), "")


def test_reasons_of_other_programs_are_not_passed_on() -> None:
    foreign = FIRST.replace(reason="SomebodysWord")
    found = start(STARTING, STEPPED.replace(attempts=(foreign, SECOND)))
    assert [span.reason for span in found.spans if span.reason] == ["Other"]


@pytest.mark.parametrize(
    "values",
    [
        {"startup/imports": 1e300, "startup/loading": 1e300, "startup/first_step": 1e300},
        {"startup/imports": -1e300, "startup/first_step": -5.0},
    ],
    ids=["too long", "negative"],
)
@pytest.mark.parametrize("moment", [at(-9e6), at(9e6)], ids=["old", "new"])
def test_what_a_trainer_writes_bends_no_span_out_of_the_start(
    values: dict[str, float], moment: datetime
) -> None:
    found = with_first_row(start(STARTING, STEPPED), ROW.replace(time=moment, values=values))
    assert all(found.begin <= span.begin <= span.end <= found.end for span in found.spans)
    assert StartStage.FIRST_STEP in {span.stage for span in found.spans}


def test_clocks_that_differ_and_nonsense_in_a_pod_leave_a_trace() -> None:
    pod = {"metadata": POD["metadata"], "status": {
        "startTime": "soon", "containerStatuses": [container("trainer", -500)],
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026"}],
    }}  # fmt: skip
    found = start(STARTING, STEPPED, Observed(jobs=(job(-90),), pods=(pod,)))
    assert all(found.begin <= span.begin <= span.end <= found.end for span in found.spans)
