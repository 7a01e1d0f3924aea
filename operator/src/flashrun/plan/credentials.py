"""Storage credentials that expire: when to renew them, and the Secret that holds them.

The rule is the same for the trainer of a run and for the users of a namespace.
"""

from datetime import datetime, timedelta

from flashrun.api import names
from flashrun.api.records import StorageAccess
from flashrun.api.times import parse_time
from flashrun.plan.types import Object


def are_due(expires: datetime | None, lifetime_seconds: int, now: datetime) -> bool:
    """Return whether half of the credentials' lifetime is over; None never expires."""
    return expires is not None and expires - now <= timedelta(seconds=lifetime_seconds / 2)


def expiry_of(secret: Object) -> datetime | None:
    """Return when the credentials in a Secret expire, from its metadata; None: never."""
    text = (secret.get("annotations") or {}).get(names.EXPIRES_ANNOTATION)
    return parse_time(text) if text else None


def access_secret(metadata: Object, access: StorageAccess) -> tuple[Object, dict[str, str]]:
    """Return the metadata and the values of the Secret that holds ``access``."""
    annotations = dict(metadata.get("annotations") or {})
    if access.expires is not None:
        annotations[names.EXPIRES_ANNOTATION] = access.expires.isoformat()
    values = {names.ACCESS_KEY: access.model_dump_json(exclude_none=True)}
    return ({**metadata, "annotations": annotations} if annotations else metadata), values
