"""Environments as they lie in storage: packages by digest, and a pointer to the newest."""

from typing import TYPE_CHECKING, Final

from flashrun.api import names
from flashrun.api.environment_owners import foreign_environment
from flashrun.api.records import EnvironmentPointer
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import NotFoundFailure, UsageFailure
from flashrun.store_errors import KeyNotFound

if TYPE_CHECKING:
    from flashrun.store_listing import Entry

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
    return [entry.key for entry in await _list(session, prefix)]


async def digests(session: ClusterSession, identifier: str) -> list[str]:
    """Return the digest of each version of an environment."""
    return [
        key.rpartition("/")[2].removesuffix(_PACKAGE_SUFFIX)
        for key in await keys(session, identifier)
        if key.endswith(_PACKAGE_SUFFIX)
    ]


async def identifiers(session: ClusterSession) -> list[str]:
    """Return the id of every published environment that belongs to the namespace."""
    pointer = "/latest.json"
    lists = [await _list(session, prefix) for prefix in await prefixes(session)]
    return sorted(
        entry.key.removeprefix(names.ENVIRONMENTS_PREFIX).removesuffix(pointer)
        for entries in lists
        for entry in entries
        if entry.key.endswith(pointer)
    )


async def prefixes(session: ClusterSession) -> tuple[str, ...]:
    """Return the prefixes below which the namespace's environments are."""
    orgs = await _orgs(session)
    return (names.ENVIRONMENTS_PREFIX,) if orgs is None else tuple(map(names.org_prefix, orgs))


async def foreign(session: ClusterSession, identifier: str) -> str:
    """Return why an environment does not belong to the namespace, or an empty string."""
    orgs = await _orgs(session)
    return "" if orgs is None else foreign_environment(identifier, session.namespace, orgs)


async def check_owner(session: ClusterSession, identifier: str) -> None:
    """Raise ``UsageFailure`` if an environment does not belong to the namespace."""
    if problem := await foreign(session, identifier):
        raise UsageFailure(problem)


async def _orgs(session: ClusterSession) -> tuple[str, ...] | None:
    """Return the orgs of the namespace; None when the operator does not publish them."""
    platform = await session.get_platform()
    return platform.environment_orgs if platform is not None else None


async def _list(session: ClusterSession, prefix: str) -> list["Entry"]:
    return await session.with_store(lambda store: list(store.list(prefix)))


def not_published(identifier: str) -> NotFoundFailure:
    """Return the failure for an environment that is not in storage."""
    return NotFoundFailure(
        f"there is no environment {identifier}", "flash env list shows what there is"
    )
