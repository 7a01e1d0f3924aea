"""Failures of commands: each kind has its exit code, which scripts rely on."""

import pytest

from flashrun.cli.output.failure import ExitCode, Failure, NotFoundFailure, UsageFailure


@pytest.mark.parametrize(("kind", "code"), [(Failure, 1), (UsageFailure, 2), (NotFoundFailure, 3)])
def test_each_kind_has_its_exit_code(kind: type[Failure], code: int) -> None:
    assert kind("a sentence").code == code


def test_a_failure_has_a_sentence_and_a_hint() -> None:
    failure = Failure("the run was deleted", "flash rerun starts it again")
    assert str(failure) == failure.sentence == "the run was deleted"
    assert failure.hint == "flash rerun starts it again"
    assert Failure("a sentence").hint == ""


def test_exit_codes_do_not_change() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "RUN_FAILED": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "INTERRUPTED": 130,
    }
