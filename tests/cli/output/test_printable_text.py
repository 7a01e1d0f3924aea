"""Text that others wrote, before a terminal shows it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrun.cli.output.printable_text import printable_line, printable_text
from tests.cli.output.hostile import HOSTILE


@pytest.mark.parametrize(("hostile", "shown"), HOSTILE)
def test_escape_sequences_leave_no_trace(hostile: str, shown: str) -> None:
    assert printable_text(hostile) == shown


@given(st.text(st.one_of(st.characters(), st.sampled_from("\x1b[]\x07\x9b;m0\r\n")), max_size=80))
def test_no_text_reaches_the_terminal_with_a_control_character(text: str) -> None:
    shown = printable_text(text)

    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert printable_line(text).isprintable()


def test_other_values_are_shown_as_json() -> None:
    assert printable_text({"a": [1, None]}) == '{"a": [1, null]}'
    assert printable_line(["a", 1]) == '["a", 1]'


def test_a_line_has_no_line_ends() -> None:
    assert printable_line(" a\n\tb\r\nc ") == "a b c"
