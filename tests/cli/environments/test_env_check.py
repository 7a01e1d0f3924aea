"""What the events of an environment check mean: events in, findings out."""

import sys
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.config import Algorithm
from flashrun.api.env_check_records import CheckedRow, CheckEvent, Fault, ScoredAnswer
from flashrun.cli.environments.env_check import (
    EnvCheckResult,
    EnvFinding,
    PlannedRun,
    Severity,
    assess,
    check_possible,
)
from flashrun.cli.output.failure import UsageFailure

ERROR, WARNING = Severity.ERROR, Severity.WARNING
SFT = PlannedRun(Algorithm.SFT, thinking=False, max_tokens=320, max_length=1024)
GRPO = PlannedRun(Algorithm.GRPO, thinking=False, max_tokens=320, max_length=2368)
ANY = PlannedRun(None, thinking=False, max_tokens=320, max_length=2368)


def row(
    number: int = 1, gold: float | None = 1, junk: float | None = 0, **changes: Any
) -> CheckedRow:
    plays = tuple(play(score) for score in (gold, junk))
    whole = CheckedRow(
        number=number,
        prompt="1 + 1",
        prompt_characters=5,
        answer="2",
        answer_characters=1,
        gold=plays[0],
        junk=(plays[1],),
    )
    return whole.model_copy(update=changes)


def play(score: float | None, seconds: float = 0) -> ScoredAnswer:
    error = "" if score is not None else "ZeroDivisionError: division by zero"
    return ScoredAnswer(
        score=score, error=error, place=error and "environment.py:9", seconds=seconds
    )


def findings(*rows: CheckedRow, plan: PlannedRun = ANY) -> list[EnvFinding]:
    return assess(EnvCheckResult(tuple(CheckEvent(row=one) for one in rows)), plan)


FINE = {
    "right beats wrong": (ANY, [row()]),
    "nothing to compare with": (GRPO, [row(gold=None, junk=None).model_copy(
        update={"gold": None, "junk": (play(0), play(0.5)), "answer": "", "answer_characters": 0}
    )]),
    "SFT never scores": (SFT, [row(gold=0, junk=0)]),
    "GRPO never imitates": (
        GRPO._replace(thinking=True),
        [row(answer_characters=4, has_thoughts=False)],
    ),
    "an answer as long as it may be": (GRPO, [row(answer_characters=320 * 4)]),
    "reasoning where it is wanted": (SFT._replace(thinking=True), [row(has_thoughts=True)]),
}  # fmt: skip


@pytest.mark.parametrize(("plan", "rows"), FINE.values(), ids=FINE)
def test_it_is_fine(plan: PlannedRun, rows: list[CheckedRow]) -> None:
    assert findings(*rows, plan=plan) == []


FOUND = {
    "a constant reward": (ANY, [row(gold=1, junk=1), row(2, gold=1, junk=1)], WARNING,
                          "every answer scores 1, right or wrong"),
    "junk as good as gold": (ANY, [row(), row(2, gold=0.5, junk=0.5)], WARNING,
                             "in 1 of 2 scored rows junk scores as well as the row's own answer "
                             "(row 2)"),
    "junk better than gold": (GRPO, [row(gold=0, junk=1)], WARNING, "in 1 of 1 scored rows junk"),
    "a reward that sometimes raises": (ANY, [row(), row(2, junk=None)], WARNING,
                                       "the reward failed for 1 of 4 answers, first in row 2"),
    "a reward that always raises": (GRPO, [row(gold=None, junk=None)], ERROR,
                                    "the reward failed for 2 of 2 answers"),
    "a slow reward": (GRPO, [row(gold=1).model_copy(update={"junk": (play(0, seconds=5),)})],
                      WARNING, "scoring one answer takes 2.5 s"),
    "nothing to imitate": (SFT, [row(answer="", answer_characters=0)], ERROR,
                           "no row has an output"),
    "little to imitate": (ANY, [row(answer_characters=0), row(2)], WARNING,
                          "1 of 2 rows (row 1) has no output"),
    "reasoning that nobody asks for": (SFT, [row(), row(2, has_thoughts=True)],
                                       WARNING, "1 of 2 rows (row 2) has reasoning"),
    "no reasoning": (SFT._replace(thinking=True), [row(), row(2), row(3, has_thoughts=True)],
                     WARNING, "2 of 3 rows (row 1, 2) have no reasoning"),
    "a long answer": (GRPO, [row(answer_characters=1281)], WARNING,
                      "1 of 1 rows (row 1) has an answer longer than max_tokens = 320 (estimated "
                      "at 4 characters per token, the longest 321)"),
    "a long prompt": (GRPO, [row(prompt_characters=8193)], WARNING,
                      "a prompt longer than the 2048 tokens"),
    "a long example": (SFT, [row(prompt_characters=4000, answer_characters=97)], WARNING,
                       "more tokens than max_length = 1024"),
}  # fmt: skip


@pytest.mark.parametrize(("plan", "rows", "level", "sentence"), FOUND.values(), ids=FOUND)
def test_it_is_found(
    plan: PlannedRun, rows: list[CheckedRow], level: Severity, sentence: str
) -> None:
    [found] = findings(*rows, plan=plan)

    assert (found.severity, sentence in found.sentence) == (level, True), found


def test_a_failed_reward_names_the_line_of_the_environment() -> None:
    [found] = findings(row(gold=None, junk=None))

    assert str(found).startswith("environment.py:9: ")


def test_errors_come_before_warnings() -> None:
    odd = CheckEvent(fault=Fault(sentence="its input is empty", fatal=False))
    bad = CheckEvent(fault=Fault(sentence="the row is not JSON"))

    assert [found.severity for found in assess(EnvCheckResult((odd, bad)), ANY)] == [ERROR, WARNING]


def test_a_check_that_did_not_finish_is_an_error() -> None:
    found = assess(
        EnvCheckResult((CheckEvent(row=row()),), "it took longer than 3 s while scoring row 2"), ANY
    )

    assert found == [EnvFinding(ERROR, "it took longer than 3 s while scoring row 2")]


def test_an_environment_of_verifiers_needs_an_interpreter_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "environment.py").write_text("import verifiers\n")
    with pytest.raises(UsageFailure, match="needs verifiers, which is not installed") as refused:
        check_possible(tmp_path, with_tokenizer=False)
    assert "--python" in refused.value.hint
    check_possible(tmp_path, with_tokenizer=False, python=sys.executable)
    with pytest.raises(UsageFailure, match="is not a program"):
        check_possible(tmp_path, with_tokenizer=False, python=str(tmp_path / "python"))
