"""Bounds of a stored table, which hold before it is validated.

Every wrong value costs an error of its own, and the API server keeps objects of 1.5 MB.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

ENTRIES_LIMIT: Final = 64
"""Most entries of one list or table: no list or table of ours has more."""
VALUES_LIMIT: Final = 512
"""Most values in one field."""


def bounded_fields(stored: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the fields ``names`` of a table, without those that hold more than is read."""
    return {name: stored[name] for name in names if name in stored and is_bounded(stored[name])}


def is_bounded(value: Any) -> bool:
    """Return whether a value is within both limits; it looks at no more than they allow."""
    waiting, values = [value], 1
    while waiting:
        item = waiting.pop()
        if not isinstance(item, dict | list):
            continue
        values += len(item)
        if len(item) > ENTRIES_LIMIT or values > VALUES_LIMIT:
            return False
        waiting.extend(item.values() if isinstance(item, dict) else item)
    return True
