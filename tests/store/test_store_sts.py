"""Requests to STS: what is sent, and answers that are not those of STS."""

import pytest

from flashrun.store import Store
from flashrun.store_errors import StoreError
from flashrun.store_sts import assume_role_form, web_identity_form
from tests.store.small_s3 import Fault, small_s3

POLICY = {"Version": "2012-10-17", "Statement": []}


def test_a_role_is_named_only_where_there_is_one() -> None:
    assert "RoleArn" not in assume_role_form(POLICY, 900, "")
    assert assume_role_form(POLICY, 900, "arn:x")["RoleArn"] == "arn:x"
    assert "RoleArn" not in web_identity_form("t", "")
    assert web_identity_form("t", "arn:x")["RoleArn"] == "arn:x"


def test_the_policy_is_sent_without_spaces() -> None:
    form = assume_role_form(POLICY, 900, "")
    assert form["Policy"] == '{"Version":"2012-10-17","Statement":[]}'
    assert form["DurationSeconds"] == "900"


def test_a_web_identity_is_not_signed_with_keys() -> None:
    with small_s3() as s3:
        access = Store(s3.access).assume_with_web_identity("token")
        assert access.session_token == "token"
        assert access.expires is not None
        assert s3.forms[0]["WebIdentityToken"] == "token"


@pytest.mark.parametrize("fault", [it for it in Fault if it.name.startswith("STS_")])
def test_whatever_a_store_without_sts_answers_is_an_error_of_storage(fault: Fault) -> None:
    with small_s3(fault) as s3, pytest.raises(StoreError, match="AssumeRole"):
        Store(s3.access).assume(POLICY, 900)
