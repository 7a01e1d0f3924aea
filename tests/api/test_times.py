"""Times as Kubernetes and our records write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from flashrun.api.times import format_micro_time, format_time, parse_time, whole_seconds

MOMENT = datetime(2026, 11, 22, 12, 0, 30, 250_000, UTC)
IN_BERLIN = MOMENT.astimezone(timezone(timedelta(hours=1)))


@pytest.mark.parametrize("moment", [MOMENT, IN_BERLIN])
def test_times_are_written_in_utc(moment: datetime) -> None:
    assert format_time(moment) == "2026-11-22T12:00:30Z"
    assert format_micro_time(moment) == "2026-11-22T12:00:30.250000Z"


def test_a_micro_time_of_a_whole_second_has_six_digits_too() -> None:
    assert format_micro_time(whole_seconds(MOMENT)) == "2026-11-22T12:00:30.000000Z"


@pytest.mark.parametrize(
    "text", ["2026-11-22T12:00:30.250Z", "2026-11-22T12:00:30.250000+00:00", MOMENT.isoformat()]
)
def test_every_spelling_of_a_time_is_read(text: str) -> None:
    assert parse_time(text) == MOMENT


def test_what_the_api_server_stores_is_equal_to_what_was_written() -> None:
    assert parse_time(format_time(MOMENT)) == whole_seconds(IN_BERLIN)


def test_text_that_is_not_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="yesterday"):
        parse_time("yesterday")
