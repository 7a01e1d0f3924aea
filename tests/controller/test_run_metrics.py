"""Metrics of runs: what is counted from one status to the next, and the gauges of each run."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from flashrun.api.reasons import Phase
from flashrun.api.resource import (
    AttemptStatus,
    CheckpointStatus,
    EvaluationPointStatus,
    EvaluationStatus,
    FailureStatus,
    FlashRunStatus,
    ProgressStatus,
    ResolvedStatus,
)
from flashrun.controller import operator_metrics
from flashrun.controller.queue import RunKey
from flashrun.controller.run_metrics import SHOWN_AFTER_END_SECONDS, SHOWN_RUNS, RunMetrics
from tests.plan.worlds import NAME, NAMESPACE, NOW, make_run

PLACE = {"namespace": NAMESPACE, "pool": "small"}
THIS_RUN = {"namespace": NAMESPACE, "run": NAME}
RESOLVED = ResolvedStatus(pool="small")


def status(phase: Phase = Phase.RUNNING, step: int | None = None, **fields: Any) -> FlashRunStatus:
    progress = step if step is None else ProgressStatus(
        step=step, total_steps=10, percent=0, updated_time=NOW + timedelta(seconds=step)
    )  # fmt: skip
    return FlashRunStatus(phase=phase, progress=progress, resolved=RESOLVED, **fields)


def counted(name: str, labels: dict[str, str]) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def write(*statuses: FlashRunStatus) -> None:
    """Let a run go through these statuses."""
    metrics = RunMetrics()
    for before, after in itertools.pairwise(statuses):
        metrics.written(make_run(status=before), after)


@pytest.mark.parametrize(
    ("name", "statuses", "times", "seconds"),
    [
        ("flashrun_run_queue_duration_seconds",
         (status(), status(start_time=NOW), status(start_time=NOW, step=3)), 1, 60),
        ("flashrun_run_first_step_duration_seconds",
         (status(), status(step=0), status(step=2), status(step=3)), 1, 62),
        # It was lost before the first checkpoint, and does its first step again.
        ("flashrun_run_first_step_duration_seconds",
         (status(step=0, attempts=(AttemptStatus(number=1, pod="p", to_step=4),)), status(step=1)),
         0, 0),
        # A clock that goes back counts nothing below zero.
        ("flashrun_run_queue_duration_seconds",
         (status(), status(start_time=NOW - timedelta(hours=1))), 1, 0),
    ],
    ids=["the first pod starts", "the first step", "a first step again", "a clock goes back"],
)  # fmt: skip
def test_a_run_is_counted_once_with_the_time_since_its_creation(
    name: str, statuses: tuple[FlashRunStatus, ...], times: int, seconds: float
) -> None:
    names = (f"{name}_count", f"{name}_sum")
    before = [counted(each, PLACE) for each in names]
    write(*statuses)
    assert [counted(each, PLACE) - was for each, was in zip(names, before, strict=True)] == [
        times, seconds
    ]  # fmt: skip


def test_gpu_time_is_counted_as_the_status_grows_also_after_the_end() -> None:
    before = counted("flashrun_gpu_seconds_total", PLACE)
    write(
        status(gpu_seconds=30),
        status(gpu_seconds=90),
        status(Phase.SUCCEEDED, gpu_seconds=90),
        status(Phase.SUCCEEDED, gpu_seconds=100),
    )
    assert counted("flashrun_gpu_seconds_total", PLACE) - before == 70


def test_an_end_is_counted_once_with_its_reason() -> None:
    labels = {"phase": "Failed", "reason": "OutOfMemory"}
    before = counted("flashrun_runs_ended_total", labels)
    failure = FailureStatus(reason="OutOfMemory", message="m")
    failed = status(Phase.FAILED, failure=failure)
    write(status(), failed, failed.replace(gpu_seconds=1))
    assert counted("flashrun_runs_ended_total", labels) - before == 1


def collected(metrics: RunMetrics, name: str, labels: dict[str, str] = THIS_RUN) -> float | None:
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry.get_sample_value(name, labels)


TRAINED = status(
    step=7,
    checkpoints=(
        CheckpointStatus(ref="r/step-6", step=6, bytes=600, created_time=NOW),
        CheckpointStatus(ref="r/step-3", step=3, bytes=300, created_time=NOW),
    ),
    attempts=(AttemptStatus(number=1, pod="p", start=NOW - timedelta(hours=1)),),
    evaluation=EvaluationStatus(
        metric="score",
        baseline=EvaluationPointStatus(step=0, score="0.1"),
        last=EvaluationPointStatus(step=6, score="0.75"),
        best=EvaluationPointStatus(step=3, score="0.8"),
    ),
)


def test_the_gauges_of_a_run_show_its_newest_step_checkpoint_and_evaluation() -> None:
    metrics = RunMetrics()
    metrics.show(make_run(), TRAINED)
    assert collected(metrics, "flashrun_run_step") == 7
    assert collected(metrics, "flashrun_run_checkpoint_bytes") == 600
    assert collected(metrics, "flashrun_run_checkpoint_timestamp_seconds") == NOW.timestamp()
    score = collected(metrics, "flashrun_run_evaluation_score", {**THIS_RUN, "metric": "score"})
    assert score == 0.75

    metrics.forget(RunKey(NAMESPACE, NAME))
    assert collected(metrics, "flashrun_run_step") is None


def test_what_an_interruption_costs_counts_from_the_newest_attempt_of_a_run_at_work() -> None:
    def shown(phase: Phase, *starts: timedelta) -> float | None:
        metrics = RunMetrics()
        attempts = tuple(
            AttemptStatus(number=number, pod=f"p{number}", start=NOW + start)
            for number, start in enumerate(starts, 1)
        )
        metrics.show(make_run(), TRAINED.replace(phase=phase, attempts=attempts))
        return collected(metrics, "flashrun_run_checkpoint_timestamp_seconds")

    late = timedelta(hours=5)
    assert shown(Phase.RUNNING, -late) == NOW.timestamp()
    assert shown(Phase.RUNNING, -late, late) == (NOW + late).timestamp()
    assert shown(Phase.SUSPENDED, -late) is None
    assert shown(Phase.SUCCEEDED, -late) is None


def test_a_score_that_somebody_else_wrote_does_not_stop_the_other_metrics() -> None:
    evaluation = EvaluationStatus(metric="m", last=EvaluationPointStatus(step=1, score="high"))
    metrics = RunMetrics()
    metrics.show(make_run(), status(step=1, evaluation=evaluation))
    assert collected(metrics, "flashrun_run_step") == 1


def test_the_last_values_of_a_run_stay_for_a_while_after_its_end() -> None:
    now = 0.0
    metrics = RunMetrics(clock=lambda: now)
    ended = TRAINED.replace(phase=Phase.SUCCEEDED)
    metrics.show(make_run(status=TRAINED), ended)
    now = SHOWN_AFTER_END_SECONDS - 1
    metrics.show(make_run(status=ended), ended)
    assert collected(metrics, "flashrun_run_step") == 7
    now = SHOWN_AFTER_END_SECONDS + 1
    assert collected(metrics, "flashrun_run_step") is None
    metrics.show(make_run(status=ended), ended)
    assert collected(metrics, "flashrun_run_step") is None


def test_only_so_many_runs_have_gauges_of_their_own() -> None:
    metrics = RunMetrics()
    for number in range(SHOWN_RUNS + 1):
        metrics.show(make_run().replace(name=f"run-{number}"), status(step=1))
    last = {**THIS_RUN, "run": f"run-{SHOWN_RUNS}"}
    assert collected(metrics, "flashrun_run_step", last) == 1
    assert collected(metrics, "flashrun_run_step", {**THIS_RUN, "run": "run-0"}) is None


def test_runs_of_a_namespace_that_is_served_no_more_are_not_shown() -> None:
    """No pass looks at them: what they show would stay, and let alerts fire."""
    served = {NAMESPACE}
    metrics = RunMetrics(is_served=served.__contains__)
    metrics.show(make_run(), status(step=3))
    assert collected(metrics, "flashrun_run_step", THIS_RUN) == 3
    served.clear()
    assert collected(metrics, "flashrun_run_step", THIS_RUN) is None
    served.add(NAMESPACE)
    assert collected(metrics, "flashrun_run_step", THIS_RUN) is None


def test_every_phase_has_a_number_in_each_namespace_that_has_runs() -> None:
    metrics = RunMetrics(lambda: {("a", ""): 2, ("a", "Running"): 1, ("a", "Paused"): 4})

    def number(phase: str) -> float | None:
        return collected(metrics, "flashrun_runs", {"namespace": "a", "phase": phase})

    shown = {phase: number(phase) for phase in (*Phase, "Unknown", "Paused")}
    assert shown.pop("Paused") is None
    assert {phase: count for phase, count in shown.items() if count} == {
        "Pending": 2, "Running": 1, "Unknown": 4
    }  # fmt: skip
    assert None not in shown.values()


def test_counters_and_histograms_name_no_run() -> None:
    operator_metrics.prepare([NAMESPACE], ["small"])
    for family in REGISTRY.collect():
        if family.name.startswith("flashrun_") and family.type in ("counter", "histogram"):
            for sample in family.samples:
                assert not {"run", "name", "uid"} & sample.labels.keys(), sample
