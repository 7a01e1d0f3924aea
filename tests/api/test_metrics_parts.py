"""Which rows of a run's metrics count, by the names of their parts; and how large parts become."""

import pytest

from flashrun.api import names
from flashrun.api.metrics_parts import (
    FIRST_PART_BYTES,
    MOST_PARTS,
    StoredPart,
    last_steps,
    part_bytes,
    stored_parts,
)

PREFIX = "runs/team/run/uid/"
GIB = 1024**3


def key(attempt: int, after: int, number: int = 0) -> str:
    return names.metrics_part_key(PREFIX, attempt, after, number)


def parts(*keys: str) -> list[StoredPart]:
    return stored_parts(PREFIX, ((name, 1) for name in keys))


def test_parts_are_in_the_order_of_their_rows_and_not_of_their_names() -> None:
    own = [key(1, 0, 2), key(1, 0, 10), key(2, 40), key(10, 60)]
    others = [f"{PREFIX}metrics/notes.txt", f"{PREFIX}metrics.jsonl.bak", "runs/x/metrics.jsonl"]
    listed = sorted([*own, *others, names.metrics_key(PREFIX)])

    assert [part.key for part in parts(*listed)] == [names.metrics_key(PREFIX), *own]


CASES = {
    "one attempt": ([key(1, 0)], {1: None}),
    "a resume": ([key(1, 0), key(2, 40)], {1: 40, 2: None}),
    "a resume that saved nothing": (
        [key(1, 0), key(2, 40), key(3, 40)],
        {1: 40, 2: 40, 3: None},
    ),
    "a resume from before an earlier one": (
        [key(1, 0), key(2, 40), key(4, 20)],
        {1: 20, 2: 20, 4: None},
    ),
    "a start from the beginning": ([key(1, 0), key(2, 0)], {1: 0, 2: None}),
    "a run of an earlier version": ([names.metrics_key(PREFIX), key(3, 7)], {0: 7, 3: None}),
    "a run of an earlier version only": ([names.metrics_key(PREFIX)], {0: None}),
    "nothing": ([], {}),
}


@pytest.mark.parametrize(("keys", "steps"), CASES.values(), ids=CASES)
def test_rows_that_a_later_attempt_trains_again_do_not_count(
    keys: list[str], steps: dict[int, int | None]
) -> None:
    assert last_steps(parts(*keys)) == steps


def test_a_long_history_has_a_bounded_number_of_parts_and_short_ones() -> None:
    sizes = [part_bytes(number) for number in range(MOST_PARTS)]

    assert sizes[0] == FIRST_PART_BYTES
    assert sizes[-1] is None
    assert max(filter(None, sizes)) <= 2 * 1024**2
    assert 0.9 * GIB < sum(filter(None, sizes)) < GIB


@pytest.mark.parametrize(
    "name",
    ["attempt-0/after-0-part-0", "attempt-01/after-0-part-0", "attempt-1/after--1-part-0",
     "attempt-1/after-0-part-00", "attempt-1/after-0", "attempt-1/after-0-part-²"],
)  # fmt: skip
def test_another_key_is_not_a_part(name: str) -> None:
    assert parts(f"{PREFIX}metrics/{name}.jsonl") == []
