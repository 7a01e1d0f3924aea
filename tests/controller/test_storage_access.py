"""Issuing credentials for storage: limited ones with STS, the operator's own without."""

from datetime import UTC, datetime
from typing import Any

from flashrun.api.platform import StorageSettings
from flashrun.api.records import StorageAccess
from flashrun.controller.storage_access import issue_access
from flashrun.plan.types import AccessGrant

OWN = StorageAccess(
    endpoint="https://s3.example", bucket="runs", access_key="operator", secret_key="hush"
)
LIMITED = OWN.replace(access_key="run", expires=datetime(2026, 1, 2, tzinfo=UTC))
GRANT = AccessGrant(metadata={}, policy={"Version": "2012-10-17"}, seconds=3600)


class RecordedStore:
    """Stands in for the store: it records what is assumed."""

    access = OWN

    def __init__(self) -> None:
        self.assumed: list[tuple[Any, int, str]] = []

    def assume(self, policy: Any, seconds: int, role_arn: str) -> StorageAccess:
        self.assumed.append((policy, seconds, role_arn))
        return LIMITED


def test_with_sts_the_policy_of_the_grant_limits_the_credentials() -> None:
    store: Any = RecordedStore()
    settings = StorageSettings(endpoint="https://s3.example", role_arn="arn:aws:iam::1:role/x")
    assert issue_access(store, settings, GRANT) == LIMITED
    assert store.assumed == [(GRANT.policy, 3600, "arn:aws:iam::1:role/x")]


def test_without_sts_they_are_those_of_the_operator() -> None:
    store: Any = RecordedStore()
    settings = StorageSettings(endpoint="https://s3.example", sts=False)
    assert issue_access(store, settings, GRANT) == OWN
    assert store.assumed == []
