"""``flash env push``: publish a folder as an environment."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flashrun.api import names
from flashrun.api.records import EnvironmentPointer
from flashrun.cli.cluster import published_environments
from flashrun.cli.cluster.connection import connect
from flashrun.cli.environments import package
from flashrun.cli.environments.identifier import check_identifier
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import formatting, terminal


def push(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder with environment.py or a project.", metavar="FOLDER"),
    ] = Path(),
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="ORG/NAME, or NAME for NAMESPACE/NAME; by default the folder's name."
        ),
    ] = None,
    allowed: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            help="File to publish although it seems to hold a secret; can be repeated.",
            metavar="FILE",
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Publish a folder as an environment and print its id.

    The environment belongs to the namespace if its ORG has the namespace's name, or if the
    platform has bound ORG to the namespace.

    A run uses the package that was the newest one when the run was accepted: pushing again does
    not change it.

    Example: flash env push ./sums --name team-a/sums
    """
    packed = package.pack(folder, tuple(allowed or ()))
    if packed.left_out:
        terminal.say(f"left out: {', '.join(packed.left_out)}")
    name = folder.resolve().name if name is None else name
    terminal.write(asyncio.run(_push(packed, name, namespace, context)))


async def _push(
    packed: package.Package, name: str, namespace: str | None, context: str | None
) -> str:
    """Upload the package and make it the newest version; return the environment's id."""
    async with connect(context, namespace) as session:
        identifier = check_identifier(name if "/" in name else f"{session.namespace}/{name}")
        await published_environments.check_owner(session, identifier)
        key = names.environment_package_key(identifier, packed.digest)
        # Also where it is there: its content may have been changed, which ends runs that read it.
        await session.with_store(
            lambda store: store.put_bytes(key, packed.data, "application/gzip")
        )
        pointer = EnvironmentPointer(
            digest=packed.digest, size=len(packed.data), pushed=datetime.now(UTC)
        )
        latest = names.environment_latest_key(identifier)
        await session.with_store(lambda store: store.put_json(latest, pointer))
    terminal.say(
        f"published {len(packed.files)} files, {formatting.format_size(len(packed.data))}, "
        f'digest {packed.digest[:12]}; in your config:\n[environment]\nid = "{identifier}"'
    )
    return identifier
