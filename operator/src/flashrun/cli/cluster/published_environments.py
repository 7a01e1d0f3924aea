"""Environments as they lie in storage: packages by digest, and a pointer to the newest."""

from typing import Final

from flashrun.api import names
from flashrun.api.records import EnvironmentPointer
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import NotFoundFailure
from flashrun.store_errors import KeyNotFound

_PACKAGE_SUFFIX: Final = ".tar.gz"


async def newest_version(session: ClusterSession, identifier: str) -> EnvironmentPointer:
    """Return the newest version of an environment; raises ``NotFoundFailure``."""
    latest = names.environment_latest_key(identifier)
    try:
        return await session.with_store(lambda store: store.get_json(latest, EnvironmentPointer))
    except KeyNotFound:
        raise not_published(identifier) from None


async def keys(session: ClusterSession, identifier: str) -> list[str]:
    """Return every key of an environment; empty when it was never published."""
    prefix = names.environment_prefix(identifier)
    return [entry.key for entry in await session.with_store(lambda store: list(store.list(prefix)))]


async def digests(session: ClusterSession, identifier: str) -> list[str]:
    """Return the digest of each version of an environment."""
    return [
        key.rpartition("/")[2].removesuffix(_PACKAGE_SUFFIX)
        for key in await keys(session, identifier)
        if key.endswith(_PACKAGE_SUFFIX)
    ]


async def identifiers(session: ClusterSession) -> list[str]:
    """Return the id of every published environment."""
    entries = await session.with_store(lambda store: list(store.list(names.ENVIRONMENTS_PREFIX)))
    pointer = "/latest.json"
    return [
        entry.key.removeprefix(names.ENVIRONMENTS_PREFIX).removesuffix(pointer)
        for entry in entries
        if entry.key.endswith(pointer)
    ]


def not_published(identifier: str) -> NotFoundFailure:
    """Return the failure for an environment that is not in storage."""
    return NotFoundFailure(
        f"there is no environment {identifier}", "flash env list shows what there is"
    )
