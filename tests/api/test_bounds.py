"""Bounds of what a tenant or a pod may write: clean text, and metrics that fit into a record."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as some

from flashrun.api.bounds import (
    METRIC_NAME_LIMIT,
    METRICS_LIMIT,
    STATUS_TEXT_LIMIT,
    clean_text,
    fit_metrics,
)
from flashrun.api.reasons import Reason
from flashrun.api.record_reader import read_record
from flashrun.api.records import MetricsRow
from flashrun.api.resource import FailureStatus

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@given(some.text())
def test_clean_text_prints_on_one_line_and_stays_as_it_is(text: str) -> None:
    clean = clean_text(text)
    assert clean.isprintable()
    assert clean_text(clean) == clean


@given(some.dictionaries(some.text(max_size=600), some.floats(), max_size=400))
@settings(max_examples=30, deadline=None)
def test_metrics_that_are_written_fit_into_a_record(values: dict[str, float]) -> None:
    row = MetricsRow(step=1, attempt=1, time=NOW, values=fit_metrics(values))
    assert read_record(row.model_dump_json(), MetricsRow, NOW).step == 1


def test_metrics_without_a_finite_value_are_left_out_and_long_names_are_cut() -> None:
    values = {"loss": 0.5, "nan": float("nan"), "infinite": float("inf"), "x" * 300: 1.0}
    assert fit_metrics(values) == {"loss": 0.5, "x" * METRIC_NAME_LIMIT: 1.0}
    assert len(fit_metrics({str(number): 1.0 for number in range(999)})) == METRICS_LIMIT


def test_a_long_sentence_of_a_status_is_cut_and_ends_with_a_mark() -> None:
    failure = FailureStatus(reason=Reason.UNEXPECTED, message="x" * 5000, hint="y" * 2048)
    assert (len(failure.message), failure.message[-2:]) == (STATUS_TEXT_LIMIT, "x…")
    assert failure.hint == "y" * STATUS_TEXT_LIMIT
    assert FailureStatus.model_validate_json(failure.model_dump_json()) == failure
