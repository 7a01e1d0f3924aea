"""``flash pull``: download an adapter, and check every file of it."""

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from flashrun.api import names
from flashrun.api.names import Ref
from flashrun.cli.cluster.best_checkpoint import find_best
from flashrun.cli.cluster.connection import ClusterSession, connect
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import NotFoundFailure, UsageFailure

_CONFIG: Final = "adapter_config.json"


def pull(
    ref: Annotated[
        str,
        typer.Argument(
            help="RUN for its final adapter, RUN/step-N for a checkpoint.", metavar="REF"
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(help="New folder; by default named after the reference.", metavar="FOLDER"),
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="The checkpoint with the best score on held-out examples."),
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Download an adapter and print the folder that holds it.

    Example: flash pull flash-1795370000-3fa9c1d2/step-50 my-adapter
    """
    try:
        parsed = names.parse_ref(ref)
    except ValueError as error:
        raise UsageFailure(str(error)) from None
    if best and parsed.step is not None:
        raise UsageFailure(
            f"--best chooses the checkpoint, and {parsed} names one",
            f"use flash pull {parsed.run} --best, or leave out --best",
        )
    terminal.write(str(asyncio.run(_pull(parsed, folder, best, namespace, context))))


async def _pull(
    ref: Ref, folder: Path | None, best: bool, namespace: str | None, context: str | None
) -> Path:
    if not best:
        folder = _new_folder(ref, folder)
    async with connect(context, namespace) as session:
        if best:
            found = await find_best(session, ref.run)
            ref, folder = found.ref, _new_folder(found.ref, folder)
            terminal.say(found.sentence)
        prefix = await find_adapter(session, ref)
        assert folder is not None
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".flash-") as scratch:
            part = Path(scratch, "adapter")
            manifest = await session.with_store(lambda store: store.download_folder(prefix, part))
            adapter = next(
                (Path(file.path).parent for file in manifest.files if file.path.endswith(_CONFIG)),
                Path(),
            )
            # The folder appears whole or not at all; a checkpoint keeps its adapter one level down.
            (part / adapter).rename(folder)
    return folder


def _new_folder(ref: Ref, given: Path | None) -> Path:
    """Return the folder to download to; raises ``UsageFailure`` if something is in it."""
    folder = given or Path(str(ref).replace("/", "-"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFailure(f"{folder} exists already", "name a new folder")
    return folder


async def find_adapter(session: ClusterSession, ref: Ref) -> str:
    """Return the storage prefix of the newest committed adapter that ``ref`` names.

    It is found also when its FlashRun was deleted. Raises ``NotFoundFailure``.
    """
    runs = names.run_name_prefix(session.namespace, ref.run)
    ending = (
        f"/step-{ref.step}/{names.MANIFEST}"
        if ref.step is not None
        else f"/adapter/{names.MANIFEST}"
    )

    entries = await session.with_store(lambda store: list(store.list(runs)))
    manifests = [entry for entry in entries if entry.key.endswith(ending)]
    if not manifests:
        any_saved = any(entry.key.endswith(names.MANIFEST) for entry in entries)
        hint = (
            f"flash checkpoints {ref.run} lists what it saved"
            if any_saved
            else "flash runs lists the runs"
        )
        raise NotFoundFailure(f"nothing is saved as {ref} in namespace {session.namespace}", hint)
    newest = max(manifests, key=lambda entry: (str(entry.modified), entry.key))
    return newest.key.removesuffix(names.MANIFEST)
