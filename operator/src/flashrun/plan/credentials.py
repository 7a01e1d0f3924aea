"""Storage credentials that expire: when to renew them, and the Secret that holds them.

The rule is the same for the trainer of a run and for the users of a namespace.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from flashrun.api import names
from flashrun.api.records import StorageAccess
from flashrun.api.times import parse_time
from flashrun.plan.types import Object

_CLOCK_TOLERANCE: Final = timedelta(minutes=15)
_LONG_PAST: Final = datetime.fromtimestamp(0, UTC)


def are_due(expires: datetime | None, lifetime_seconds: int, now: datetime) -> bool:
    """Return whether half of the credentials' lifetime is over; None never expires.

    Credentials that seem to live longer than any that are issued are due, too: the annotation that
    says so is not ours.
    """
    if expires is None:
        return False
    left, lifetime = expires - now, timedelta(seconds=lifetime_seconds)
    return left <= lifetime / 2 or left > lifetime + _CLOCK_TOLERANCE


def expiry_of(secret: Object) -> datetime | None:
    """Return when the credentials in a Secret expire, by its annotation; None: never.

    People may write the annotation: a time that cannot be read counts as long past.
    """
    text = (secret.get("annotations") or {}).get(names.EXPIRES_ANNOTATION)
    if not text:
        return None
    try:
        expires = parse_time(text)
        return expires.astimezone(UTC) if expires.tzinfo else _LONG_PAST
    except (ValueError, OverflowError):
        return _LONG_PAST


def access_secret(metadata: Object, access: StorageAccess) -> tuple[Object, dict[str, str]]:
    """Return the metadata and the values of the Secret that holds ``access``."""
    annotations = dict(metadata.get("annotations") or {})
    if access.expires is not None:
        annotations[names.EXPIRES_ANNOTATION] = access.expires.isoformat()
    values = {names.ACCESS_KEY: access.model_dump_json(exclude_none=True)}
    return ({**metadata, "annotations": annotations} if annotations else metadata), values
