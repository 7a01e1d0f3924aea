"""Environments in storage: which there are, and the versions of each."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from flashrun.api import names
from flashrun.api.public import PublicPlatform
from flashrun.api.records import EnvironmentPointer
from flashrun.cli.cluster import published_environments
from flashrun.cli.output.failure import ExitCode, NotFoundFailure, UsageFailure
from flashrun.store_errors import KeyNotFound

POINTER = EnvironmentPointer(digest="b" * 64, size=3, pushed=datetime(2026, 1, 2, tzinfo=UTC))


class Key(NamedTuple):
    key: str


class Storage:
    """Stands in for the store: keys and the records at them."""

    def __init__(self) -> None:
        self.records: dict[str, Any] = {}

    def list(self, prefix: str) -> list[Key]:
        return [Key(key) for key in sorted(self.records) if key.startswith(prefix)]

    def get_json(self, key: str, model: type) -> Any:
        if key not in self.records:
            raise KeyNotFound(f"{key} does not exist")
        assert isinstance(self.records[key], model)
        return self.records[key]


class Session:
    """Stands in for a session with the cluster: it opens storage."""

    namespace = "team-a"

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.orgs: tuple[str, ...] | None = None

    async def get_platform(self) -> PublicPlatform:
        return PublicPlatform(environment_orgs=self.orgs)

    async def with_store(self, work: Callable[[Storage], Any]) -> Any:
        return work(self._storage)


@pytest.fixture
def session() -> Any:
    """Two environments; one has two versions."""
    storage = Storage()
    for identifier, versions in {"org/one": "a", "org/two": "ab"}.items():
        storage.records[names.environment_latest_key(identifier)] = POINTER
        for letter in versions:
            key = names.environment_prefix(identifier) + letter * 64 + ".tar.gz"
            storage.records[key] = b""
    return Session(storage)


async def test_every_environment_is_listed_by_its_id(session: Any) -> None:
    assert await published_environments.identifiers(session) == ["org/one", "org/two"]


async def test_only_environments_of_the_namespaces_orgs_are_listed(session: Any) -> None:
    session.orgs = ("team-a", "org")
    assert await published_environments.identifiers(session) == ["org/one", "org/two"]
    session.orgs = ("team-a", "or")
    assert await published_environments.identifiers(session) == []


async def test_an_environment_of_another_org_is_refused(session: Any) -> None:
    await published_environments.check_owner(session, "org/one")
    session.orgs = ("team-a",)
    with pytest.raises(UsageFailure, match="use team-a/one, or ask"):
        await published_environments.check_owner(session, "org/one")


async def test_the_newest_version_is_what_the_pointer_says(session: Any) -> None:
    assert await published_environments.newest_version(session, "org/two") == POINTER


async def test_every_version_has_its_digest(session: Any) -> None:
    assert await published_environments.digests(session, "org/two") == ["a" * 64, "b" * 64]
    assert await published_environments.digests(session, "org/none") == []


async def test_the_keys_of_an_environment_are_its_pointer_and_its_packages(session: Any) -> None:
    keys = await published_environments.keys(session, "org/one")
    assert names.environment_latest_key("org/one") in keys
    assert len(keys) == 2


async def test_an_environment_that_was_never_published_ends_in_a_sentence(session: Any) -> None:
    with pytest.raises(NotFoundFailure, match="there is no environment org/none") as failure:
        await published_environments.newest_version(session, "org/none")
    assert failure.value.code is ExitCode.NOT_FOUND
    assert "flash env list" in failure.value.hint
