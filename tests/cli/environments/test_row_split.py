"""Held-out rows: how many, which, and never one whose prompt is trained on."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrun.cli.environments.row_split import split_rows


def prompts(*texts: str) -> list[tuple[str, ...]]:
    return [(f"user: {text}",) for text in texts]


@given(
    st.lists(st.sampled_from("abcdefgh"), max_size=60),
    st.none() | st.integers(0, 80),
    st.integers(0, 5),
)
def test_no_prompt_is_on_both_sides_and_no_row_is_lost(
    texts: list[str], count: int | None, seed: int
) -> None:
    train, held_out = split_rows(prompts(*texts), count, seed)

    assert sorted((*train, *held_out)) == list(range(len(texts)))
    assert list(train) == sorted(train)
    assert not {texts[index] for index in train} & {texts[index] for index in held_out}
    assert len(held_out) <= len(texts) / 2
    assert count is None or len(held_out) <= count


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [(1, None, 0), (2, None, 1), (10, None, 1), (11, None, 2), (200, None, 20), (5000, None, 64),
     (10, 3, 3), (10, 100, 5), (10, 0, 0)],
)  # fmt: skip
def test_a_tenth_is_held_out_and_at_most_64_rows(
    rows: int, count: int | None, expected: int
) -> None:
    assert len(split_rows(prompts(*map(str, range(rows))), count).held_out) == expected


def test_a_prompt_with_too_many_rows_stays_in_training() -> None:
    assert split_rows(prompts(*"a" * 10)).held_out == ()
    assert split_rows(prompts(*"aaaaaaaaab")).held_out == (9,)


def test_the_choice_follows_from_the_seed_alone() -> None:
    texts = [str(number) for number in range(100)]
    chosen = {texts[index] for index in split_rows(prompts(*texts)).held_out}
    random.Random(1).shuffle(texts)

    assert {texts[index] for index in split_rows(prompts(*texts)).held_out} == chosen
    assert {texts[index] for index in split_rows(prompts(*texts), seed=1).held_out} != chosen


def test_held_out_rows_stay_held_out_when_rows_are_added() -> None:
    texts = [str(number) for number in range(200)]
    before, after = split_rows(prompts(*texts[:100]), 10), split_rows(prompts(*texts), 20)

    assert len(set(before.held_out) & set(after.held_out)) >= 5


def test_held_out_rows_of_a_sorted_file_come_from_all_of_it() -> None:
    held_out = split_rows(prompts(*map(str, range(1000)))).held_out

    assert list(held_out) != sorted(held_out)
    assert max(held_out[:10]) > 500 > min(held_out[:10])
