"""Metrics in storage: rows that count, of parts and of the one file of an earlier version."""

import json
from typing import Any

import pytest

from flashrun.api import names
from flashrun.store_errors import Corrupt, Unavailable
from flashrun.store_metrics import read_history
from tests.cli.storage import metrics_history
from tests.trainer.memory_store import Memory

PREFIX = "runs/team/run/uid/"


def losses(*steps: int, value: float = 0.5) -> bytes:
    return metrics_history({step: {"loss": value} for step in steps})


def part(attempt: int, after: int, number: int = 0) -> str:
    return names.metrics_part_key(PREFIX, attempt, after, number)


def history(objects: dict[str, bytes], **limits: int) -> list[tuple[int, float]]:
    memory: Any = Memory(objects)
    rows = [row for _, row in read_history(memory, PREFIX, **limits)]
    return [(row.step, row.values["loss"]) for row in rows]


def test_a_run_without_metrics_has_no_rows() -> None:
    assert history({}) == []


def test_the_parts_of_an_attempt_are_one_history() -> None:
    objects = {part(1, 0, number): losses(2 * number, 2 * number + 1) for number in range(12)}
    assert [step for step, _ in history(objects)] == list(range(24))


def test_each_step_counts_once_however_often_it_was_trained() -> None:
    objects = {
        part(1, 0): losses(0, 1, 2, 3, 4),
        part(2, 2): losses(3, 4, 5, value=0.25),
        part(3, 2): losses(3, 4, value=0.125),
    }
    assert history(objects) == [(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.125), (4, 0.125)]


def test_a_run_that_an_earlier_version_began_goes_on_in_parts() -> None:
    begun = {names.metrics_key(PREFIX): losses(1, 2, 3)[:-10]}
    assert [step for step, _ in history(begun)] == [1, 2]
    assert [step for step, _ in history({**begun, part(2, 1): losses(2, 3)})] == [1, 2, 3]


JUNK = [
    b"",
    b"not JSON",
    b"[]",
    b"\xff\xfe",
    b'{"step": -1}',
    json.dumps(
        {"step": 1, "attempt": 1, "time": "2026-11-22T12:00:00Z", "values": {"a": "x"}}
    ).encode(),
    b'{"step": 1, "attempt": 1, "time": "2026-11-22T12:00:00Z", "values": {"a": NaN}}',
]


def test_a_line_that_is_not_a_row_is_left_out() -> None:
    lines = b"\n".join([*JUNK, losses(1, 2), *JUNK, b""])
    assert [step for step, _ in history({part(1, 0): lines})] == [1, 2]


def test_a_history_beyond_its_limit_is_refused_before_it_is_read() -> None:
    objects = {part(1, 0, number): losses(number) for number in range(4)}
    size = sum(map(len, objects.values()))
    assert len(history(objects, limit=size)) == 4
    with pytest.raises(Corrupt, match="longer than"):
        history(objects, limit=size - 1)


def test_a_part_that_cannot_be_read_is_an_error_and_not_a_gap() -> None:
    memory: Any = Memory({part(1, 0, number): losses(number) for number in range(20)})
    memory.away = {part(1, 0, 7)}
    with pytest.raises(Unavailable):
        read_history(memory, PREFIX)
