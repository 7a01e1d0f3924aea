"""How a report divides the time of a run."""

from flashrun.cli.report.run_timeline import Span, Stage, run_spans
from tests.cli.report.runs import NOW, attempt, flash_run, row, trained


def test_a_run_waits_starts_trains_and_finishes_in_each_attempt() -> None:
    data = trained()

    assert run_spans(data.run, data.metrics, NOW) == [
        Span(Stage.WAITING, 0, 120),
        Span(Stage.STARTING, 120, 300, 1),
        Span(Stage.TRAINING, 300, 600, 1),
        Span(Stage.FINISHING, 600, 660, 1),
        Span(Stage.WAITING, 660, 1200),
        Span(Stage.STARTING, 1200, 1515, 2),
        Span(Stage.TRAINING, 1515, 1800, 2),
        Span(Stage.FINISHING, 1800, 1860, 2),
    ]


def test_a_run_that_never_got_a_pod_waits_until_now() -> None:
    assert run_spans(flash_run(), [], NOW) == [Span(Stage.WAITING, 0, 3600)]


def test_an_attempt_without_metrics_was_starting_until_its_end() -> None:
    run = flash_run(phase="Running", attempts=[attempt(1, 2, None)])
    assert run_spans(run, [], NOW)[1:] == [Span(Stage.STARTING, 120, 3600, 1)]


def test_rows_from_a_clock_that_is_wrong_stay_within_their_attempt() -> None:
    run = flash_run(attempts=[attempt(1, 2, 10)], completionTime=NOW.isoformat())
    rows = [row(1, -30, loss=1), row(2, 90, loss=1)]
    assert run_spans(run, rows, NOW)[1:] == [Span(Stage.TRAINING, 120, 600, 1)]


def test_a_deleted_run_has_no_times() -> None:
    assert run_spans(flash_run(deleted=True), [row(1, 3, loss=1)], NOW) == []
