"""The error for each answer of an S3 server that refuses a request, and for each broken connection.

Pure functions: nothing here opens a connection.
"""

from typing import Final

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as NetworkTimeoutError

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

TRANSIENT_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504, 507})

_UNAUTHORIZED: Final = {
    "ExpiredToken": "the storage credentials have expired; they are renewed by the operator",
    "InvalidTokenId": "the storage credentials have expired or belong to another store",
    "InvalidAccessKeyId": "the store does not know the access key; check the storage credentials",
    "SignatureDoesNotMatch": "the secret key is wrong; check the storage credentials",
    "RequestTimeTooSkewed": "the clocks of store and client differ by more than 15 minutes",
}
_OTHER_REGION: Final = frozenset(
    {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
)
_RENEWABLE: Final = frozenset({"ExpiredToken", "InvalidTokenId", "RequestTimeTooSkewed"})


class KeyExistsAfterRetry(KeyExists):
    """The key exists, and an earlier try of the same request may have created it."""


class ReadBeyondEnd(StoreError):
    """A read began behind the last byte of the object."""


def object_name(access: StorageAccess, key: str) -> str:
    """Return how errors name ``key``; an empty key stands for the bucket."""
    return f"{key or 'the bucket'} in storage {access.endpoint}/{access.bucket}"


def refusal(
    access: StorageAccess,
    key: str,
    status: int,
    code: str,
    message: str | None,
    *,
    retried: bool = False,
) -> StoreError:
    """Return the error that an HTTP answer stands for.

    ``code`` and ``message`` are those of S3's XML answer. ``retried``: the request was sent more
    than once.
    """
    name = object_name(access, key)
    answer = f"{code or status}: {message or 'no explanation'}"
    if code == "NoSuchBucket":
        return StoreError(
            f"storage {access.endpoint} has no bucket {access.bucket!r}; "
            "create it, or correct storage.bucket"
        )
    if code in _OTHER_REGION:
        return StoreError(f"{name}: it is in another region ({answer}); correct storage.region")
    if status == 404:
        return KeyNotFound(f"{name} does not exist")
    if status == 412:
        kind = KeyExistsAfterRetry if retried else KeyExists
        return kind(f"{name} exists already")
    if status == 416:
        return ReadBeyondEnd(f"{name} is shorter")
    if code in _UNAUTHORIZED:
        return Unauthorized(f"{name}: {_UNAUTHORIZED[code]}", temporary=code in _RENEWABLE)
    if status in {401, 403}:
        return StorageForbidden(f"{name}: access was refused ({answer})")
    # 409 is the answer to a conditional PUT that met another one in flight.
    if status in TRANSIENT_STATUS or status == 409 or code == "SlowDown":
        unavailable = WriteConflict if status == 409 else Unavailable
        return unavailable(f"{name}: the store is not available at the moment ({answer})")
    return StoreError(f"{name}: the store refused ({answer})", temporary=code == "NoSuchUpload")


def network_cause(error: HTTPError, connect_seconds: float, read_seconds: float) -> str:
    """Return why there was no answer within the two time limits of a connection."""
    cause: object = error.reason if isinstance(error, MaxRetryError) else error
    match cause:
        case ProxyError():  # before those that it inherits from or wraps
            return (
                "the proxy of HTTPS_PROXY or HTTP_PROXY did not connect; NO_PROXY lists addresses "
                "that need none"
            )
        case NameResolutionError():
            return "the host name of the endpoint does not resolve"
        case NewConnectionError():  # before the timeout, which it inherits from
            return "the connection was refused; is the store running and reachable from here?"
        case ConnectTimeoutError():
            return f"no connection within {connect_seconds:.0f} s"
        case SSLError():
            return f"the TLS connection failed ({cause}); a private CA goes into the CA bundle"
        case NetworkTimeoutError():
            return f"no answer within {read_seconds:.0f} s"
        case _:
            return f"the connection broke ({type(cause).__name__})"
