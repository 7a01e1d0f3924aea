"""The errors of store: which of them are temporary."""

import pytest

from flashrun.store_errors import (
    Corrupt,
    KeyExists,
    KeyNotFound,
    StorageForbidden,
    StoreError,
    Unauthorized,
    Unavailable,
)

LASTING = [StoreError, KeyNotFound, KeyExists, StorageForbidden, Unauthorized, Corrupt]


@pytest.mark.parametrize("kind", LASTING)
def test_most_errors_stay_until_someone_acts(kind: type[StoreError]) -> None:
    assert not kind("a sentence").temporary


def test_a_store_that_is_away_may_come_back() -> None:
    assert Unavailable("a sentence").temporary


def test_one_error_can_be_temporary_where_its_kind_is_not() -> None:
    assert Unauthorized("a sentence", temporary=True).temporary
    assert not Unauthorized("a sentence").temporary
