"""Reading the status of Kubernetes objects."""

from typing import Any

from flashrun.plan.types import Object


def find_condition(manifest: Object, kind: str, status: str = "True") -> dict[str, Any] | None:
    """Return the condition ``kind`` of an object if it has this status, else None."""
    conditions = (manifest.get("status") or {}).get("conditions") or []
    matching = (
        condition
        for condition in conditions
        if condition.get("type") == kind and condition.get("status") == status
    )
    return next(matching, None)
