"""Storage credentials: when they are renewed, and the Secret that holds them."""

from datetime import timedelta

import pytest

from flashrun.api import names
from flashrun.api.records import StorageAccess
from flashrun.plan.credentials import access_secret, are_due, expiry_of
from tests.plan.worlds import NOW

ACCESS = StorageAccess(
    endpoint="http://storage.example:9000",
    bucket="flashrun",
    region="us-east-1",
    access_key="reader",
    secret_key="secret",
)


@pytest.mark.parametrize(
    ("left", "due"),
    [
        (timedelta(hours=12), False),
        (timedelta(hours=6, seconds=1), False),
        (timedelta(hours=6), True),
        (timedelta(0), True),
        (-timedelta(hours=1), True),
        (timedelta(days=4000), True),
    ],
)
def test_credentials_of_twelve_hours_are_due_after_six(left, due) -> None:
    assert are_due(NOW + left, 12 * 3600, NOW) is due


def test_credentials_that_never_expire_are_never_due() -> None:
    assert not are_due(None, 12 * 3600, NOW)


@pytest.mark.parametrize("expires", [None, NOW + timedelta(hours=12)])
def test_the_expiry_is_read_back_from_the_secret(expires) -> None:
    metadata, values = access_secret({"name": "x"}, ACCESS.replace(expires=expires))

    assert metadata["name"] == "x"
    assert expiry_of(metadata) == expires
    assert StorageAccess.model_validate_json(values[names.ACCESS_KEY]).expires == expires


@pytest.mark.parametrize(
    "text",
    ["never", "2026-11-22T12:00:00", "9999-12-31T23:59:59-14:00", "²", "0001-01-01T00:00:00+14:00"],
)
def test_an_expiry_that_cannot_be_read_is_long_past(text) -> None:
    expires = expiry_of({"annotations": {names.EXPIRES_ANNOTATION: text}})

    assert expires is not None
    assert are_due(expires, 12 * 3600, NOW)


def test_annotations_of_the_secret_are_kept() -> None:
    given = {"name": "x", "annotations": {"a": "b"}}
    metadata, _ = access_secret(given, ACCESS.replace(expires=NOW))

    assert metadata["annotations"].keys() == {"a", names.EXPIRES_ANNOTATION}
    assert given["annotations"] == {"a": "b"}
