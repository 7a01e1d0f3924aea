"""``flash env``: environments, which say what a run learns from."""

import asyncio
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flashrun.cli import package, rehearsal, render, template, terminal
from flashrun.cli.failure import NotFoundFailure, UsageFailure
from flashrun.cli.options import Context, Form, Namespace, Output
from flashrun.cli.render import Cell, Table
from flashrun.cli.session import Session, connect
from flashrun.spec import compose, names
from flashrun.spec.records import EnvironmentPointer

app = typer.Typer(
    help="Make, publish and fetch environments: the data and rewards of a run.",
    no_args_is_help=True,
)

_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")

Identifier = Annotated[
    str, typer.Argument(help="Environment, as in your-org/your-env.", metavar="ID")
]


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder with environment.py.")] = Path(),
    name: Annotated[
        str | None,
        typer.Option("--name", help="ORG/NAME, or NAME; namespace and folder when left out."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Publish a folder as an environment and print its id.

    Example: flash env push ./sums --name team-a/sums
    """
    packed = package.pack(folder)
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
        f"published {len(packed.files)} files, {render.size(len(packed.data))}, "
        f'digest {packed.digest[:12]}; in your config:\n[environment]\nid = "{identifier}"'
    )
    return identifier


@app.command()
def pull(
    identifier: Identifier,
    folder: Annotated[
        Path | None, typer.Argument(help="New folder; the environment's name when left out.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Fetch an environment into a folder and print its path.

    Example: flash env pull team-a/sums ./sums
    """
    target = folder or Path(_identifier(identifier).partition("/")[2])
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageFailure(f"{target} exists already; name a new folder")
    data = asyncio.run(_fetch(identifier, namespace, context))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".flash-") as scratch:
        part = Path(scratch, "environment")
        package.unpack(data, part)
        part.rename(target)  # the folder appears whole or not at all
    terminal.write(str(target))


async def _fetch(identifier: str, namespace: str | None, context: str | None) -> bytes:
    async with connect(context, namespace) as session:
        pointer = await _pointer(session, _identifier(identifier))
        key = names.environment_package_key(identifier, pointer.digest)
        return await session.stored(lambda store: store.get_bytes(key, limit=package.PACKED_LIMIT))


async def _pointer(session: Session, identifier: str) -> EnvironmentPointer:
    from flashrun.store import NotFound

    latest = names.environment_latest_key(identifier)
    try:
        return await session.stored(lambda store: store.get_json(latest, EnvironmentPointer))
    except NotFound:
        raise NotFoundFailure(
            f"there is no environment {identifier}", "flash env list shows what there is"
        ) from None


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
                {"id": identifier, **pointer.model_dump(mode="json")}
                for identifier, pointer in found.items()
            ]
            terminal.write_data(listed, output)
        case Output.NAME:
            for identifier in found:
                terminal.write(identifier)
        case Output.TABLE:
            rows = (
                (
                    Cell(identifier),
                    Cell(pointer.digest[:12]),
                    Cell(render.size(pointer.size)),
                    Cell(render.age(pointer.pushed, now)),
                )
                for identifier, pointer in found.items()
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
        return {identifier: await _pointer(session, identifier) for identifier in identifiers}


@app.command()
def setup(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.")] = Path(),
) -> None:
    """Write a small environment to begin with; files that exist are kept.

    Example: flash env setup ./sums
    """
    identifier = f"your-org/{folder.resolve().name}"
    for name, text in template.FILES.items():
        path = folder / name
        if path.exists():
            terminal.say(f"kept {path}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{id}", identifier))
        terminal.write(str(path))
    terminal.say(f"next: flash env test {folder}, then flash env push {folder} --name {identifier}")


@app.command("test")
def rehearse(
    folder: Annotated[Path, typer.Argument(help="Folder with environment.py.")] = Path(),
    split: Annotated[str, typer.Option(help="Which dataset/<split>.jsonl.")] = "train",
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")] = 3,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--param", help="Argument of load_environment; repeat it.", metavar="KEY=VALUE"
        ),
    ] = None,
) -> None:
    """Run an environment here: build prompts, and score the answers its own data gives.

    Example: flash env test ./sums --rows 10
    """
    given = compose.assignments(params or ())
    lines = list(rehearsal.rehearse(folder, given, split, rows))
    cells = (
        (
            Cell(str(line.row)),
            Cell(line.prompt),
            Cell(line.answer),
            Cell("" if line.score is None else f"{line.score:g}"),
        )
        for line in lines
    )
    terminal.write_table(Table(("ROW", "PROMPT", "ANSWER", "SCORE"), tuple(cells)))
    scores = [line.score for line in lines if line.score is not None]
    if scores and not any(scores):
        terminal.say("note: no answer of its own data scored; GRPO would learn nothing from this")


def _identifier(text: str) -> str:
    """Return ``text`` if it is an environment's id."""
    if not _ID.fullmatch(text) or any(part in (".", "..") for part in text.split("/")):
        raise UsageFailure(
            f"{text!r} is not an environment: use ORG/NAME of letters, digits, '.', '_' and '-'"
        )
    return text
