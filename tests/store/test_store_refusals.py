"""The error for each answer of an S3 server and for each broken connection, without a server."""

import pytest
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from flashrun.api.records import StorageAccess
from flashrun.store_errors import (
    KeyExists,
    KeyNotFound,
    StorageForbidden,
    StoreError,
    Unauthorized,
    Unavailable,
    WriteConflict,
)
from flashrun.store_refusals import (
    KeyExistsAfterRetry,
    ReadBeyondEnd,
    network_cause,
    object_name,
    refusal,
)

ACCESS = StorageAccess(
    endpoint="https://s3.example.com", bucket="runs", access_key="A", secret_key="S"
)
PLACE = "in storage https://s3.example.com/runs"

REFUSALS = {
    "a bucket that is not there": (
        404,
        "NoSuchBucket",
        StoreError,
        "storage https://s3.example.com has no bucket 'runs'; create it, or correct storage.bucket",
    ),
    "a key that is not there": (404, "NoSuchKey", KeyNotFound, f"a/b {PLACE} does not exist"),
    "a key that is there": (412, "PreconditionFailed", KeyExists, f"a/b {PLACE} exists already"),
    "a read behind the end": (416, "InvalidRange", ReadBeyondEnd, f"a/b {PLACE} is shorter"),
    "a wrong secret key": (
        403,
        "SignatureDoesNotMatch",
        Unauthorized,
        f"a/b {PLACE}: the secret key is wrong; check the storage credentials",
    ),
    "a right that is missing": (
        403,
        "AccessDenied",
        StorageForbidden,
        f"a/b {PLACE}: access was refused (AccessDenied: because)",
    ),
    "a busy server": (
        503,
        "SlowDown",
        Unavailable,
        f"a/b {PLACE}: the store is not available at the moment (SlowDown: because)",
    ),
    "another region": (
        400,
        "AuthorizationHeaderMalformed",
        StoreError,
        "a/b in storage https://s3.example.com/runs: it is in another region "
        "(AuthorizationHeaderMalformed: because); correct storage.region",
    ),
    "two conditional writes at once": (
        409,
        "",
        WriteConflict,
        f"a/b {PLACE}: the store is not available at the moment (409: because)",
    ),
    "anything else": (
        400,
        "EntityTooLarge",
        StoreError,
        f"a/b {PLACE}: the store refused (EntityTooLarge: because)",
    ),
}


@pytest.mark.parametrize(
    ("status", "code", "kind", "sentence"), REFUSALS.values(), ids=REFUSALS.keys()
)
def test_each_refusal_has_its_error_and_its_sentence(
    status: int, code: str, kind: type[StoreError], sentence: str
) -> None:
    error = refusal(ACCESS, "a/b", status, code, "because")
    assert type(error) is kind
    assert str(error) == sentence


@pytest.mark.parametrize(
    ("code", "temporary"),
    [
        ("ExpiredToken", True),
        ("InvalidTokenId", True),
        ("RequestTimeTooSkewed", True),
        ("InvalidAccessKeyId", False),
        ("NoSuchUpload", True),
    ],
)
def test_what_time_or_a_repetition_repairs_is_temporary(code: str, temporary: bool) -> None:
    assert refusal(ACCESS, "a/b", 400, code, None).temporary is temporary


def test_a_key_that_exists_after_a_retry_may_be_our_own() -> None:
    error = refusal(ACCESS, "a/b", 412, "PreconditionFailed", "because", retried=True)
    assert type(error) is KeyExistsAfterRetry


def test_an_answer_without_code_and_message_still_makes_a_sentence() -> None:
    assert str(refusal(ACCESS, "", 418, "", None)) == (
        f"the bucket {PLACE}: the store refused (418: no explanation)"
    )


def test_an_empty_key_stands_for_the_bucket() -> None:
    assert object_name(ACCESS, "") == f"the bucket {PLACE}"
    assert object_name(ACCESS, "a") == f"a {PLACE}"


CAUSES = {
    "a name": (NameResolutionError("s3", None, OSError()), "does not resolve"),
    "a closed port": (NewConnectionError(None, "refused"), "the connection was refused"),
    "a slow network": (ConnectTimeoutError(), "no connection within 5 s"),
    "TLS": (SSLError("self-signed"), r"TLS connection failed \(self-signed\); a private CA goes"),
    "silence": (ReadTimeoutError(None, "", ""), "no answer within 60 s"),
    "a hang-up": (ProtocolError("gone"), r"the connection broke \(ProtocolError\)"),
}


@pytest.mark.parametrize(("error", "sentence"), CAUSES.values(), ids=CAUSES.keys())
@pytest.mark.parametrize("retried", [False, True])
def test_a_broken_connection_has_a_cause(error: HTTPError, sentence: str, retried: bool) -> None:
    raised = MaxRetryError(None, "", error) if retried else error
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(network_cause(raised, 5, 60))
