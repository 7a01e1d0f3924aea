"""Issuing credentials for storage: limited ones where the store can, else the operator's own."""

from flashrun.api.platform import StorageSettings
from flashrun.api.records import StorageAccess
from flashrun.plan.types import AccessGrant
from flashrun.store import Store


def issue_access(store: Store, settings: StorageSettings, grant: AccessGrant) -> StorageAccess:
    """Return credentials that ``grant.policy`` limits; without STS, those of the operator."""
    if not settings.sts:
        return store.access
    return store.assume(grant.policy, grant.seconds, settings.role_arn)
