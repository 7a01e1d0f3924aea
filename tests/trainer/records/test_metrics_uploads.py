"""The metrics of an attempt in storage: complete, in parts, and short uploads in any run."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun.api import metrics_parts, names
from flashrun.api.records import MetricsRow
from flashrun.store_errors import Unavailable
from flashrun.store_metrics import read_history
from flashrun_trainer.records.metrics_uploads import MetricsUploads
from tests.trainer.memory_store import Memory

PREFIX = "runs/team/run/uid/"


class Counting(Memory):
    """Storage that counts the bytes of uploads, and can be away."""

    def __init__(self) -> None:
        super().__init__({})
        self.sent: list[tuple[str, int]] = []
        self.refuses = 0

    def put_bytes(self, key: str, data: bytes, content_type: str = "") -> None:
        if self.refuses:
            self.refuses -= 1
            raise Unavailable("storage is away")
        self.sent.append((key.removeprefix(PREFIX), len(data)))
        self.objects[key] = data


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., MetricsUploads]:
    """Begins an attempt in this storage."""

    def begin(store: Counting, number: int = 1, after: int = 0) -> MetricsUploads:
        folder = tmp_path / str(number)
        folder.mkdir()
        attempt: Any = SimpleNamespace(store=store, prefix=PREFIX, number=number)
        uploads = MetricsUploads(attempt, folder / "metrics.jsonl")
        uploads.continue_after(after)
        return uploads

    return begin


def row(step: int, metrics: int = 40, attempt: int = 1) -> MetricsRow:
    values = {f"some/metric/{number}": step + number / 7 for number in range(metrics)}
    return MetricsRow(step=step, attempt=attempt, time=datetime.now(UTC), values=values)


def stored(store: Any) -> list[tuple[int, int]]:
    """Step and attempt of each row that counts in storage."""
    return [(row.step, row.attempt) for _, row in read_history(store, PREFIX)]


def test_a_save_sends_as_much_after_5000_steps_as_after_50(
    begin: Callable[..., MetricsUploads],
) -> None:
    store = Counting()
    uploads = begin(store)
    largest = dict[int, int]()
    for step in range(1, 5001):
        uploads.append(row(step))
        if step % 10 == 0:
            store.sent.clear()
            uploads.upload()
            largest[step] = sum(size for _, size in store.sent)

    bound = metrics_parts.FIRST_PART_BYTES + 10 * 2048
    assert max(largest.values()) < bound
    assert 20 < len(store.objects) < 50
    assert [step for step, _ in stored(store)] == list(range(1, 5001))


def test_a_full_part_is_never_sent_again(begin: Callable[..., MetricsUploads]) -> None:
    store = Counting()
    uploads = begin(store)
    for step in range(1, 1001):
        uploads.append(row(step))
    uploads.upload()
    full = {key for key, _ in store.sent[:-1]}
    store.sent.clear()
    uploads.append(row(1001))
    uploads.upload()
    uploads.upload()

    assert len(full) > 3
    assert [key for key, _ in store.sent] == [f"metrics/attempt-1/after-0-part-{len(full)}.jsonl"]
    assert stored(store)[-1] == (1001, 1)


def test_the_next_attempt_takes_back_what_it_trains_again_before_it_trains(
    begin: Callable[..., MetricsUploads],
) -> None:
    store = Counting()
    first = begin(store)
    for step in range(1, 7):
        first.append(row(step, 1))
    first.upload()
    second = begin(store, 2, after=4)

    assert [read.step for read in second.read_new_rows()] == [1, 2, 3, 4]
    assert second.is_due()
    second.upload()
    assert store.sent[-1] == ("metrics/attempt-2/after-4-part-0.jsonl", 0)
    assert stored(store) == [(1, 1), (2, 1), (3, 1), (4, 1)]
    second.append(row(5, 1, 2))
    second.upload()
    first.append(row(7, 1))  # a pod that was frozen goes on
    first.upload()
    assert stored(store) == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2)]


def test_an_attempt_that_was_killed_before_its_save_leaves_no_row_behind(
    begin: Callable[..., MetricsUploads],
) -> None:
    store = Counting()
    for number, after, last in ((1, 0, 6), (2, 4, 9), (3, 4, 5)):
        uploads = begin(store, number, after)
        for step in range(after + 1, last + 1):
            uploads.append(row(step, 1, number))
        uploads.upload()

    assert stored(store) == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 3)]


def test_the_history_of_an_earlier_version_is_continued_in_parts(
    begin: Callable[..., MetricsUploads],
) -> None:
    store = Counting()
    lines = "".join(f"{row(step, 1).model_dump_json()}\n" for step in range(1, 6))
    store.objects[names.metrics_key(PREFIX)] = lines.encode()
    uploads = begin(store, 2, after=3)
    uploads.append(row(4, 1, 2))
    uploads.upload()

    assert stored(store) == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert store.objects[names.metrics_key(PREFIX)] == lines.encode()


def test_an_upload_that_fails_between_two_parts_is_continued(
    begin: Callable[..., MetricsUploads], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_parts, "FIRST_PART_BYTES", 200)
    store = Counting()
    uploads = begin(store)
    for step in range(1, 30):
        uploads.append(row(step, 1))
    for tries in (1, 1, 1):
        store.refuses = tries
        with pytest.raises(Unavailable):
            uploads.upload()
        uploads.append(row(29, 0))
    uploads.upload()

    assert [step for step, _ in stored(store)] == [*range(1, 30), 29, 29, 29]
    assert len(store.objects) > 10


def test_a_run_without_rows_stores_nothing(begin: Callable[..., MetricsUploads]) -> None:
    uploads = begin(Counting())
    assert not uploads.is_due()
    assert uploads.read_new_rows() == []
