"""``flash env pull``: download a published environment."""

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from flashrun.api import names
from flashrun.archive import PACKED_LIMIT
from flashrun.cli.cluster import published_environments
from flashrun.cli.cluster.connection import ClusterSession, connect
from flashrun.cli.environments import package
from flashrun.cli.environments.identifier import EnvironmentVersion, parse_version
from flashrun.cli.new_folder import refuse_taken_folder
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure, NotFoundFailure


def pull(
    identifier: Annotated[
        str,
        typer.Argument(
            help="Environment, as in your-org/your-env; ID@DIGEST for an older version.",
            metavar="ID[@DIGEST]",
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(help="New folder; by default the environment's name.", metavar="FOLDER"),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Download an environment and print the folder that holds it.

    Example: flash env pull team-a/sums ./sums
    """
    version = parse_version(identifier)
    target = folder or Path(version.identifier.partition("/")[2])
    refuse_taken_folder(target)
    data = asyncio.run(_fetch(version, namespace, context))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".flash-") as scratch:
        part = Path(scratch, "environment")
        part.mkdir()
        package.unpack(data, part)
        part.rename(target)  # the folder appears whole or not at all
    terminal.write(str(target))


async def _fetch(version: EnvironmentVersion, namespace: str | None, context: str | None) -> bytes:
    """Download the package of a version and check that it has the version's digest."""
    async with connect(context, namespace) as session:
        await published_environments.check_owner(session, version.identifier)
        digest = await _whole_digest(session, version)
        key = names.environment_package_key(version.identifier, digest)
        data = await session.with_store(lambda store: store.get_bytes(key, limit=PACKED_LIMIT))
    if hashlib.sha256(data).hexdigest() != digest:
        raise Failure(
            f"the package {digest[:12]} of {version.identifier} does not have this digest: "
            "it was changed in storage",
            f"publish it again: flash env push FOLDER --name {version.identifier}",
        )
    return data


async def _whole_digest(session: ClusterSession, version: EnvironmentVersion) -> str:
    """Return the whole digest of a version; raises ``NotFoundFailure``."""
    if not version.digest:
        newest = await published_environments.newest_version(session, version.identifier)
        return newest.digest
    digests = await published_environments.digests(session, version.identifier)
    matching = [digest for digest in digests if digest.startswith(version.digest)]
    if len(matching) == 1:
        return matching[0]
    what = f"{len(matching)} versions begin" if matching else "no version begins"
    listed = ", ".join(digest[:12] for digest in matching or digests) or "none"
    raise NotFoundFailure(
        f"{what} with {version.digest} in {version.identifier}", f"there are: {listed}"
    )
