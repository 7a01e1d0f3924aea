"""Times as Kubernetes and our records write them: RFC 3339, in UTC."""

from datetime import UTC, datetime


def format_time(moment: datetime) -> str:
    """Return ``moment`` with whole seconds, as Kubernetes' type ``Time``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """Return ``moment`` with microseconds, as Kubernetes' type ``MicroTime``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """Return the time that ``text`` says; raises ``ValueError`` when it is not RFC 3339."""
    return datetime.fromisoformat(text)


def whole_seconds(moment: datetime) -> datetime:
    """Return ``moment`` without fractions of a second, as the API server stores times."""
    return moment.astimezone(UTC).replace(microsecond=0)
