"""Curves and bars in one line of text."""

import math

import pytest

from flashrun.cli.output.sparkline import ASCII, UNICODE, bar, glyphs_for, sparkline

CURVES = [
    ("rising", range(8), 8, "▁▂▃▄▅▆▇█"),
    ("falling to negative values", [3, 0, -4], 8, "█▅▁"),
    ("a single value", [5], 8, "▄"),
    ("constant", [2, 2, 2], 8, "▄▄▄"),
    ("no value", [], 8, ""),
    ("no place", [1, 2], 0, ""),
    ("more values than characters are averaged", [0, 2, 10, 12, 20, 22], 3, "▁▅█"),
    ("what is not finite is left out", [0, math.nan, math.inf, 7], 8, "▁█"),
    ("the largest numbers there are", [-1.7e308, 1.7e308, 0], 8, "▁█▅"),
    ("many of the largest numbers", [1.7e308] * 100 + [-1.7e308] * 100, 2, "█▁"),
]


@pytest.mark.parametrize(
    ("values", "width", "drawn"), [c[1:] for c in CURVES], ids=[c[0] for c in CURVES]
)
def test_a_curve_is_drawn_in_one_line(values: list[float], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn


def test_ten_thousand_values_fit_a_line() -> None:
    drawn = sparkline([math.exp(-step / 2000) for step in range(10_000)], 60)

    assert len(drawn) == 60
    assert drawn == "".join(sorted(drawn, reverse=True))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "no-such-encoding", None])
def test_a_terminal_without_block_characters_gets_ascii(encoding: str | None) -> None:
    assert glyphs_for(encoding) is ASCII
    assert sparkline(range(8), 8, ASCII) == "_.:-=+*#"
    assert bar(0.5, 4, ASCII) == "##.."


def test_a_terminal_with_block_characters_gets_them() -> None:
    assert glyphs_for("utf-8") is UNICODE


@pytest.mark.parametrize(
    ("fraction", "drawn"), [(0, "░░░░"), (0.5, "██░░"), (1, "████"), (7, "████"), (-1, "░░░░")]
)
def test_a_bar_shows_the_part_that_is_done(fraction: float, drawn: str) -> None:
    assert bar(fraction, 4) == drawn
