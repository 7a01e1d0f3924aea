"""The messages of ``flash env test``: one line of JSON per event."""

import pytest
from pydantic import ValidationError

from flashrun.api.env_check_records import CheckedRow, CheckEvent, EnvCheckTask, Fault, ScoredAnswer

EVENTS = {
    "a step begins": CheckEvent(doing="importing env/environment.py"),
    "the number of rows": CheckEvent(rows=128),
    "a fault": CheckEvent(fault=Fault(sentence="the row is not JSON", place="train.jsonl:3")),
    "a row": CheckEvent(
        row=CheckedRow(
            number=1,
            prompt="1 + 1",
            prompt_characters=5,
            answer="2",
            answer_characters=1,
            gold=ScoredAnswer(score=1.0, seconds=0.1),
            junk=(ScoredAnswer(score=0.0), ScoredAnswer(error="no number")),
        )
    ),
    "the end": CheckEvent(over=True),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_an_event_is_one_line_and_comes_back_as_it_was(event: CheckEvent) -> None:
    line = event.model_dump_json(exclude_defaults=True)
    assert "\n" not in line
    assert CheckEvent.model_validate_json(line) == event


def test_a_task_comes_back_as_it_was() -> None:
    task = EnvCheckTask(folder="/env", split="train", params={"n": 3}, thinking=True, scored=5)
    assert EnvCheckTask.model_validate_json(task.model_dump_json()) == task


def test_a_fault_ends_a_run_unless_it_says_otherwise() -> None:
    assert Fault(sentence="the file has no rows").fatal


def test_rows_are_counted_from_one() -> None:
    with pytest.raises(ValidationError):
        CheckedRow(number=0, prompt="", prompt_characters=0)
