"""How a report divides the time of a run."""

from itertools import pairwise

import pytest

from flashrun.api.records import MetricsRow
from flashrun.cli.report.run_timeline import Span, Stage, run_spans
from tests.cli.report.runs import NOW, STARTUP, at, attempt, flash_run, row, trained


def first_row(minutes: float = 5.25) -> MetricsRow:
    """The row of a first step that began at 5 minutes."""
    return MetricsRow(step=1, attempt=1, time=at(minutes), values=STARTUP | {"seconds/step": 15.0})


def test_every_attempt_is_queued_pulls_loads_trains_and_uploads() -> None:
    data = trained()

    assert run_spans(data.run, data.metrics, NOW) == [
        Span(Stage.QUEUED, 0, 120),
        Span(Stage.PULLING, 120, 180, 1),
        Span(Stage.MODEL, 180, 240, 1),
        Span(Stage.PACKAGES, 240, 270, 1),
        Span(Stage.MODEL, 270, 300, 1),
        Span(Stage.TRAINING, 300, 600, 1),
        Span(Stage.ENDING, 600, 660, 1),
        Span(Stage.QUEUED, 660, 1200),
        Span(Stage.PULLING, 1200, 1380, 2),
        Span(Stage.MODEL, 1380, 1440, 2),
        Span(Stage.PACKAGES, 1440, 1470, 2),
        Span(Stage.MODEL, 1470, 1500, 2),
        Span(Stage.TRAINING, 1500, 1800, 2),
        Span(Stage.UPLOADING, 1800, 1860, 2),
    ]


def test_downloads_of_an_attempt_are_no_time_in_a_queue() -> None:
    """The kubelet has the pod from minute 2 on; the trainer starts at 4.5, after its downloads."""
    seen = attempt(1, 4.5, 10, "Completed") | {"heldFrom": at(2).isoformat()}
    run = flash_run(attempts=[seen], completionTime=at(10).isoformat())
    assert run_spans(run, [first_row()], NOW)[:4] == [
        Span(Stage.QUEUED, 0, 120),
        Span(Stage.PULLING, 120, 180, 1),
        Span(Stage.MODEL, 180, 240, 1),
        Span(Stage.PACKAGES, 240, 270, 1),
    ]


def test_the_evaluation_before_the_first_step_is_time_of_training() -> None:
    run = flash_run(attempts=[attempt(1, 2, 10, "Completed")], completionTime=at(10).isoformat())
    rows = [row(0, 4.5, eval__score=0.1, eval__seconds=30), first_row()]
    spans = run_spans(run, rows, NOW)
    assert Span(Stage.TRAINING, 240, 315, 1) in spans
    assert Span(Stage.MODEL, 210, 240, 1) in spans


def test_rows_of_earlier_versions_do_not_say_how_an_attempt_started() -> None:
    run = flash_run(attempts=[attempt(1, 2, 10, "Completed")], completionTime=at(10).isoformat())
    assert run_spans(run, [row(1, 5, loss=1), row(2, 9, loss=1)], NOW)[1:3] == [
        Span(Stage.STARTING, 120, 300, 1),
        Span(Stage.TRAINING, 300, 540, 1),
    ]


def test_a_run_that_never_got_a_pod_is_queued_until_now() -> None:
    assert run_spans(flash_run(), [], NOW) == [Span(Stage.QUEUED, 0, 3600)]


def test_an_attempt_without_metrics_was_starting_until_its_end() -> None:
    run = flash_run(phase="Running", attempts=[attempt(1, 2, None)])
    assert run_spans(run, [], NOW)[1:] == [Span(Stage.STARTING, 120, 3600, 1)]


def test_an_attempt_that_goes_on_is_training_since_its_last_row() -> None:
    run = flash_run(phase="Running", attempts=[attempt(1, 2, None)])
    assert run_spans(run, [first_row()], NOW)[-1] == Span(Stage.TRAINING, 300, 3600, 1)


@pytest.mark.parametrize("minutes", [-30, 90])
def test_rows_from_a_clock_that_is_wrong_stay_within_their_attempt(minutes: float) -> None:
    run = flash_run(attempts=[attempt(1, 2, 10)], completionTime=NOW.isoformat())
    spans = run_spans(run, [first_row(minutes), row(2, 95, loss=1)], NOW)[1:]
    assert (spans[0].begin, spans[-1].end) == (120, 600)
    assert all(before.end == span.begin for before, span in pairwise(spans))


def test_a_deleted_run_has_no_times() -> None:
    assert run_spans(flash_run(deleted=True), [row(1, 3, loss=1)], NOW) == []
