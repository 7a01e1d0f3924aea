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


def test_annotations_of_the_secret_are_kept() -> None:
    given = {"name": "x", "annotations": {"a": "b"}}
    metadata, _ = access_secret(given, ACCESS.replace(expires=NOW))

    assert metadata["annotations"].keys() == {"a", names.EXPIRES_ANNOTATION}
    assert given["annotations"] == {"a": "b"}
