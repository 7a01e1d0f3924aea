"""Calls at the same time: all of them end, and the first error in their order counts."""

import asyncio

import pytest

from flashrun.controller.all_of import all_of


async def result(value: str, ended: list[str], *, fails: bool = False) -> str:
    await asyncio.sleep(0)
    ended.append(value)
    if fails:
        raise ValueError(value)
    return value


def test_results_come_in_order_and_nothing_to_do_is_none() -> None:
    ended: list[str] = []

    async def both() -> list[str]:
        return await all_of(result("first", ended), None, result("last", ended))

    assert asyncio.run(both()) == ["first", None, "last"]


def test_when_one_fails_the_others_still_end_and_the_first_error_is_raised() -> None:
    ended: list[str] = []

    async def three() -> list[str]:
        return await all_of(
            result("first", ended),
            result("second", ended, fails=True),
            result("third", ended, fails=True),
        )

    with pytest.raises(ValueError, match="second"):
        asyncio.run(three())
    assert ended == ["first", "second", "third"]
