"""What a report reads of a run."""

from flashrun.cli.report.report_data import spread


def test_steps_are_spread_from_the_first_to_the_last() -> None:
    assert spread([1, 2, 3], 12) == [1, 2, 3]
    assert spread(range(1, 201), 5) == [1, 51, 101, 150, 200]
