"""Issuing credentials for storage: limited ones with STS, the operator's own without."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flashrun.api.platform import StorageSettings
from flashrun.api.records import StorageAccess
from flashrun.controller.storage_access import PAUSE_SECONDS, AccessIssuer
from flashrun.plan.types import AccessGrant
from flashrun.store_errors import StorageForbidden, StoreError, Unavailable

OWN = StorageAccess(
    endpoint="https://s3.example", bucket="runs", access_key="operator", secret_key="hush"
)
SHARED = OWN.replace(access_key="shared")
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
    assert AccessIssuer(store, settings, lambda: SHARED).issue(GRANT) == LIMITED
    assert store.assumed == [(GRANT.policy, 3600, "arn:aws:iam::1:role/x")]


def test_without_sts_they_are_those_that_all_share() -> None:
    store: Any = RecordedStore()
    settings = StorageSettings(endpoint="https://s3.example", sts=False)
    assert AccessIssuer(store, settings, lambda: SHARED).issue(GRANT) == SHARED
    assert store.assumed == []


class FailingStore(RecordedStore):
    """A store that answers each call with ``error``, until there is none."""

    def __init__(self, error: StoreError) -> None:
        super().__init__()
        self.error: StoreError | None = error

    def assume(self, policy: Any, seconds: int, role_arn: str) -> StorageAccess:
        access = super().assume(policy, seconds, role_arn)
        if self.error is not None:
            raise self.error
        return access


def failing(error: StoreError) -> tuple[Any, AccessIssuer, list[float]]:
    store, now = FailingStore(error), [0.0]
    settings = StorageSettings(endpoint="https://s3.example")
    issuer = AccessIssuer(store, settings, lambda: SHARED, lambda: now[0])  # type: ignore[arg-type]
    return store, issuer, now


def test_a_store_that_does_not_answer_is_asked_once_in_a_while_whoever_asks() -> None:
    store, issuer, now = failing(Unavailable("no answer in time"))
    for _ in range(100):
        with pytest.raises(Unavailable, match="no answer in time"):
            issuer.issue(GRANT)
    assert len(store.assumed) == 1

    now[0] += PAUSE_SECONDS
    for _ in range(100):
        with pytest.raises(Unavailable, match="no answer in time"):
            issuer.issue(GRANT)
    assert len(store.assumed) == 2

    now[0] += PAUSE_SECONDS
    store.error = None
    assert issuer.issue(GRANT) == LIMITED
    assert issuer.issue(GRANT) == LIMITED


def test_what_a_store_refuses_to_one_run_delays_no_other() -> None:
    store, issuer, _ = failing(StorageForbidden("AssumeRole is refused"))
    for _ in range(3):
        with pytest.raises(StorageForbidden):
            issuer.issue(GRANT)
    assert len(store.assumed) == 3
