"""``flash pull``: download an adapter, and check every file of it."""

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from flashrun.api import names
from flashrun.api.names import Ref
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
    target = folder or Path(str(parsed).replace("/", "-"))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageFailure(f"{target} exists already", "name a new folder")
    terminal.write(str(asyncio.run(_pull(parsed, target, namespace, context))))


async def _pull(ref: Ref, folder: Path, namespace: str | None, context: str | None) -> Path:
    async with connect(context, namespace) as session:
        prefix = await find_adapter(session, ref)
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
