"""``flash model push``: put a base model into the platform's mirror."""

import asyncio
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from flashrun.api.catalog import Model
from flashrun.api.records import FileEntry
from flashrun.cli.cluster import mirror
from flashrun.cli.cluster.connection import connect
from flashrun.cli.models.model_folder import read_model_folder
from flashrun.cli.models.model_name import check_model_name, check_revision
from flashrun.cli.models.model_source import open_source
from flashrun.cli.models.transfer_bar import transfer_bar
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.plan.model_check import ModelCheck, check_model, model_entry


class _Pushed(NamedTuple):
    """What became of a push."""

    uploaded: bool
    """False if the mirror had it already."""
    needs_entry: bool
    """Whether runs can use it only when the chart's values have an entry."""


def push(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of a model, GGUF file, or id on the hub as ORG/NAME or ORG/NAME@REVISION.",
            metavar="SOURCE",
        ),
    ],
    model: Annotated[
        str, typer.Option("--id", help="Id of the model in the mirror.", metavar="ORG/NAME")
    ],
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision", help="Name of this version; by default it follows from the files."
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Put a base model into the platform's mirror and print its entry for the catalog.

    Where the platform serves its mirror, no entry is needed, and the model's name is printed.

    Weights must be safetensors. A push that was interrupted goes on where it ended, if repeated.
    To convert a GGUF file or download from the hub: pip install 'flashrun[models]'.

    The platform's administrator gives the right to do this (docs/operate.md).

    Example: flash model push ./Qwen3-0.6B --id Qwen/Qwen3-0.6B
    """
    check_model_name(model)
    if revision is not None:
        check_revision(revision)
    with open_source(source) as folder:
        checked = _check(source, folder)
        size = sum((folder / name).stat().st_size for name in checked.uploaded)
        with transfer_bar("reading", size) as read:
            files = mirror.hash_files(folder, checked.uploaded, read)
        entry = model_entry(model, revision or mirror.content_revision(files), checked.facts)
        pushed = asyncio.run(_push(folder, entry, checked, files, namespace, context))
    _report(entry, checked, size, pushed)


def _check(source: str, folder: Path) -> ModelCheck:
    """Return the check of a folder; raises ``UsageFailure`` when it cannot be trained."""
    checked = check_model(read_model_folder(folder))
    if checked.problems:
        for problem in checked.problems[1:]:
            terminal.say(f"{source}: {problem}")
        raise UsageFailure(f"{source} cannot be trained: {checked.problems[0]}")
    if checked.left_out:
        terminal.say(f"left out: {', '.join(checked.left_out)}")
    return checked


async def _push(
    folder: Path,
    entry: Model,
    checked: ModelCheck,
    files: tuple[FileEntry, ...],
    namespace: str | None,
    context: str | None,
) -> _Pushed:
    async with connect(context, namespace) as session:
        with transfer_bar("uploading", sum(file.size for file in files)) as sent:
            uploaded = await session.with_mirror(
                lambda store: mirror.upload(
                    store, entry.id, entry.revision, folder, files, checked.facts, sent
                )
            )
        platform = await session.get_platform()
    needs_entry = platform is None or platform.needs_entry(entry.id)
    return _Pushed(uploaded, needs_entry)


def _report(entry: Model, checked: ModelCheck, size: int, pushed: _Pushed) -> None:
    state = "is" if pushed.uploaded else "was already"
    what = f"{len(checked.uploaded)} files, {formatting.format_size(size)}"
    terminal.say(f"{entry.id} at revision {entry.revision} {state} in the mirror ({what})")
    needs = (
        f"estimated GPU memory: {entry.vram_sft:g} GiB for SFT, {entry.vram_grpo:g} GiB for GRPO"
    )
    if not pushed.needs_entry:
        terminal.say(f"{needs}; runs can use it within a minute, see flash models")
        terminal.write(f"{entry.id}@{entry.revision}")
        return
    terminal.say(f"{needs}; add this to models in the chart's values:")
    data = entry.model_dump(mode="json", by_alias=True)
    terminal.write(terminal.to_yaml([data]).rstrip())
