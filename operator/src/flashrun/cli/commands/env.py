"""``flash env``: environments, which say what a run learns from."""

import asyncio
import hashlib
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from flashrun.api import names
from flashrun.api.records import EnvironmentPointer
from flashrun.api.resource import TERMINAL
from flashrun.archive import PACKED_LIMIT
from flashrun.cli.cluster.connection import Session, connect
from flashrun.cli.commands import env_test
from flashrun.cli.environments import package, template
from flashrun.cli.options import Context, Form, Namespace, Output
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.failure import Failure, NotFoundFailure, UsageFailure
from flashrun.cli.output.tables import Cell, Table

app = typer.Typer(
    help="Make, publish and fetch environments: the data and rewards of a run.",
    no_args_is_help=True,
)

_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_DIGEST = re.compile(r"[0-9a-f]{8,64}")

Identifier = Annotated[
    str, typer.Argument(help="Environment, as in your-org/your-env.", metavar="ID")
]


# --- setup and test -----------------------------------------------------------------------------


@app.command()
def setup(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.")] = Path(),
    several_turns: Annotated[
        bool, typer.Option("--multi-turn", help="Begin with conversations of several turns.")
    ] = False,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Begin with answers that reason first.")
    ] = False,
) -> None:
    """Write a small project to begin with; files that exist are kept.

    Example: flash env setup ./sums
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip(".-") or "my-env"
    identifier = f"your-org/{name}"
    made = template.files(identifier, several_turns=several_turns, reasoning=reasoning)
    for relative, text in made.items():
        path = folder / relative
        if path.exists():
            terminal.say(f"kept {path}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        terminal.write(str(path))
    terminal.say(
        f"next: flash env test {folder}, then flash env push {folder} --name {identifier}, "
        f"then flash train {folder / 'configs/sft.toml'}"
    )


app.command("test")(env_test.try_environment)


# --- push ---------------------------------------------------------------------------------------


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder with environment.py.")] = Path(),
    name: Annotated[
        str | None,
        typer.Option("--name", help="ORG/NAME, or NAME; namespace and folder when left out."),
    ] = None,
    allowed: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            help="File to publish although it looks as if it held a secret; repeat it.",
            metavar="FILE",
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Publish a folder as an environment and print its id.

    A run pins what is newest when it is accepted: pushing again changes no run.

    Example: flash env push ./sums --name team-a/sums
    """
    packed = package.pack(folder, tuple(allowed or ()))
    if packed.left_out:
        terminal.say(f"left out: {', '.join(packed.left_out)}")
    terminal.write(asyncio.run(_push(packed, name or folder.resolve().name, namespace, context)))


async def _push(
    packed: package.Package, name: str, namespace: str | None, context: str | None
) -> str:
    async with connect(context, namespace) as session:
        identifier = _identifier(name if "/" in name else f"{session.namespace}/{name}")
        key = names.environment_package_key(identifier, packed.digest)
        if not await session.stored(lambda store: store.exists(key)):
            await session.stored(
                lambda store: store.put_bytes(key, packed.data, "application/gzip")
            )
        pointer = EnvironmentPointer(
            digest=packed.digest, size=len(packed.data), pushed=datetime.now(UTC)
        )
        latest = names.environment_latest_key(identifier)
        await session.stored(lambda store: store.put_json(latest, pointer))
    terminal.say(
        f"published {len(packed.files)} files, {formatting.size(len(packed.data))}, "
        f'digest {packed.digest[:12]}; in your config:\n[environment]\nid = "{identifier}"'
    )
    return identifier


# --- pull ---------------------------------------------------------------------------------------


class _Version(NamedTuple):
    """One version of an environment; an empty digest means the newest."""

    identifier: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> "_Version":
        identifier, at, digest = text.partition("@")
        if at and not _DIGEST.fullmatch(digest):
            raise UsageFailure(
                f"{digest!r} is no digest: give at least its first 8 hex digits, "
                f"as in {identifier}@3fa9c1d2"
            )
        return cls(_identifier(identifier), digest)


@app.command()
def pull(
    identifier: Annotated[
        str,
        typer.Argument(
            help="Environment, as in your-org/your-env; ID@DIGEST for an older version.",
            metavar="ID[@DIGEST]",
        ),
    ],
    folder: Annotated[
        Path | None, typer.Argument(help="New folder; the environment's name when left out.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Fetch an environment into a folder and print its path.

    Example: flash env pull team-a/sums ./sums
    """
    version = _Version.parse(identifier)
    target = folder or Path(version.identifier.partition("/")[2])
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageFailure(f"{target} exists already; name a new folder")
    data = asyncio.run(_fetch(version, namespace, context))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".flash-") as scratch:
        part = Path(scratch, "environment")
        part.mkdir()
        package.unpack(data, part)
        part.rename(target)  # the folder appears whole or not at all
    terminal.write(str(target))


async def _fetch(version: _Version, namespace: str | None, context: str | None) -> bytes:
    async with connect(context, namespace) as session:
        digest = await _digest(session, version)
        key = names.environment_package_key(version.identifier, digest)
        data = await session.stored(lambda store: store.get_bytes(key, limit=PACKED_LIMIT))
    if hashlib.sha256(data).hexdigest() != digest:
        raise Failure(
            f"the package {digest[:12]} of {version.identifier} is not what its name says: "
            "somebody changed it in storage",
            f"publish it again: flash env push FOLDER --name {version.identifier}",
        )
    return data


async def _digest(session: Session, version: _Version) -> str:
    """Return the whole digest of a version; raises ``NotFoundFailure``."""
    if not version.digest:
        return (await pointer(session, version.identifier)).digest
    packages = [key for key in await _keys(session, version.identifier) if key.endswith(".tar.gz")]
    digests = [key.rpartition("/")[2].removesuffix(".tar.gz") for key in packages]
    found = [digest for digest in digests if digest.startswith(version.digest)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} versions begin" if found else "no version begins"
    listed = ", ".join(digest[:12] for digest in found or digests) or "none"
    raise NotFoundFailure(
        f"{what} with {version.digest} in {version.identifier}", f"there are: {listed}"
    )


async def _keys(session: Session, identifier: str) -> list[str]:
    prefix = names.environment_prefix(identifier)
    return [entry.key for entry in await session.stored(lambda store: list(store.list(prefix)))]


async def pointer(session: Session, identifier: str) -> EnvironmentPointer:
    """Return the newest version of an environment; raises ``NotFoundFailure``."""
    from flashrun.store_errors import KeyNotFound

    latest = names.environment_latest_key(identifier)
    try:
        return await session.stored(lambda store: store.get_json(latest, EnvironmentPointer))
    except KeyNotFound:
        raise NotFoundFailure(
            f"there is no environment {identifier}", "flash env list shows what there is"
        ) from None


# --- list ---------------------------------------------------------------------------------------


@app.command("list")
def list_environments(
    output: Form = Output.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """List the published environments.

    Example: flash env list
    """
    found = asyncio.run(_list(namespace, context))
    now = datetime.now(UTC)
    match output:
        case Output.JSON | Output.YAML:
            listed = [
                {"id": identifier, **newest.model_dump(mode="json")}
                for identifier, newest in found.items()
            ]
            terminal.write_data(listed, output)
        case Output.NAME:
            for identifier in found:
                terminal.write(identifier)
        case Output.TABLE:
            rows = (
                (
                    Cell(identifier),
                    Cell(newest.digest[:12]),
                    Cell(formatting.size(newest.size)),
                    Cell(formatting.age(newest.pushed, now)),
                )
                for identifier, newest in found.items()
            )
            terminal.write_table(Table(("ENVIRONMENT", "DIGEST", "SIZE", "AGE"), tuple(rows)))


async def _list(namespace: str | None, context: str | None) -> dict[str, EnvironmentPointer]:
    ending = "/latest.json"
    async with connect(context, namespace) as session:
        entries = await session.stored(lambda store: list(store.list(names.ENVIRONMENTS_PREFIX)))
        identifiers = [
            entry.key.removeprefix(names.ENVIRONMENTS_PREFIX).removesuffix(ending)
            for entry in entries
            if entry.key.endswith(ending)
        ]
        return {identifier: await pointer(session, identifier) for identifier in identifiers}


# --- delete -------------------------------------------------------------------------------------


@app.command()
def delete(
    identifier: Identifier,
    sure: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Delete an environment with all its versions, unless a run that goes on needs it.

    Example: flash env delete team-a/sums
    """
    asyncio.run(_delete(_identifier(identifier), sure, namespace, context))


async def _delete(identifier: str, sure: bool, namespace: str | None, context: str | None) -> None:
    async with connect(context, namespace) as session:
        keys = await _keys(session, identifier)
        if not keys:
            raise NotFoundFailure(
                f"there is no environment {identifier}", "flash env list shows what there is"
            )
        if needing := await _needing(session, identifier):
            raise UsageFailure(
                f"{identifier} is needed by {', '.join(needing)}: a retry fetches it again",
                "wait until they have ended, or end them with flash cancel",
            )
        _ask(identifier, len(keys) - 1, sure)
        latest = names.environment_latest_key(identifier)
        # What is found by nobody any more goes first: half a deletion leaves no broken pointer.
        doomed = sorted(keys, key=lambda key: key != latest)
        await session.stored(lambda store: store.delete(doomed))
    terminal.write(identifier)


async def _needing(session: Session, identifier: str) -> list[str]:
    """Return the runs that have not ended and use the environment, as far as they can be seen."""
    from flashrun.cluster_errors import Forbidden

    try:
        visible = await session.cluster.list(names.KIND)
    except Forbidden:
        visible = await session.manifests()
        terminal.say(f"note: only the runs in namespace {session.namespace} can be seen from here")
    return [
        f"{run['metadata']['namespace']}/{run['metadata']['name']}"
        for run in visible
        if run["spec"]["environment"]["id"] == identifier
        and (run.get("status") or {}).get("phase") not in TERMINAL
    ]


def _ask(identifier: str, versions: int, sure: bool) -> None:
    if sure:
        return
    if not sys.stdin.isatty():
        raise UsageFailure(f"nobody can be asked whether to delete {identifier}", "add -y")
    what = f"{identifier} with {versions} version{'' if versions == 1 else 's'}"
    if not typer.confirm(f"Delete {what}? Finished runs could not be repeated", err=True):
        raise UsageFailure("nothing was deleted")


def _identifier(text: str) -> str:
    """Return ``text`` if it is an environment's id."""
    if not _ID.fullmatch(text) or any(part in (".", "..") for part in text.split("/")):
        raise UsageFailure(
            f"{text!r} is not an environment: use ORG/NAME of letters, digits, '.', '_' and '-'"
        )
    return text
