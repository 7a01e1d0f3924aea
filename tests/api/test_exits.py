"""Exit codes and termination messages."""

import pytest

from flashrun.api import exits
from flashrun.api.exits import Exit
from flashrun.api.reasons import Retry


def test_every_exit_code_says_what_follows() -> None:
    assert all(code.retry in set(Retry) for code in Exit)


def test_no_code_is_both_ignored_and_failing_and_the_counted_rest_is_neither() -> None:
    ignored, failing = set(exits.IGNORED_CODES), set(exits.FAILING_CODES)
    counted = {int(code) for code in Exit if code.retry is Retry.COUNTED}

    assert ignored == {40, 41, 143}
    assert failing == {64, 65, 66, 68, 69, 70, 71, 72, 73}
    assert counted == {67, 75}
    # The API server refuses a Job whose codes are not in order.
    assert list(exits.IGNORED_CODES) == sorted(ignored)
    assert list(exits.FAILING_CODES) == sorted(failing)


@pytest.mark.parametrize(
    "text",
    ["", "Killed", "{}", '{"reason": "lower", "message": "x"}', '{"reason": "Ok"}', "[1, 2]",
     '{"reason": "Fine", "message": "x", "token": "unknown keys are not ours"}'],
)  # fmt: skip
def test_a_foreign_termination_message_counts_as_none(text) -> None:
    assert exits.parse_termination(text) is None


def test_our_termination_message_is_read_back() -> None:
    left = exits.Termination(reason="RewardFailed", message="It raised.", hint="See flash log.")
    assert exits.parse_termination(left.model_dump_json()) == left


@pytest.mark.parametrize(
    ("code", "known"), [(0, Exit.DONE), (71, Exit.DIVERGED), (1, None), (137, None), (None, None)]
)
def test_only_codes_of_the_trainer_are_known(code: int | None, known: Exit | None) -> None:
    assert exits.exit_of(code) is known
