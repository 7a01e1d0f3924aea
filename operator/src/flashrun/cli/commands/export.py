"""``flash export``: hand an adapter over to another tool, with card, licence note and digests."""

import asyncio
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from flashrun.api import names
from flashrun.api.catalog import Source
from flashrun.api.names import Ref
from flashrun.api.records import ResolvedModel
from flashrun.api.served import adapter_files
from flashrun.cli.adapter_refs import parse_with_best
from flashrun.cli.cluster.best_checkpoint import find_best
from flashrun.cli.cluster.connection import ClusterSession, connect, errors_as_failures
from flashrun.cli.cluster.served_adapters import StoredAdapter, explain_missing, read_adapter
from flashrun.cli.models import merging, model_source
from flashrun.cli.models.export_target import (
    ExportTarget,
    FolderTarget,
    check_target,
    deliver,
    parse_target,
)
from flashrun.cli.models.handoff_files import HandOff, check_adapter, write_handoff_files
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.daemon_thread import in_daemon_thread

if TYPE_CHECKING:
    from flashrun.store import Store

_LICENCE: Final = re.compile(r"[A-Za-z0-9(][A-Za-z0-9.+() :-]{0,199}")
"""An identifier of SPDX or of the hub, or an expression of some."""


def export(
    ref: Annotated[
        str,
        typer.Argument(
            help="RUN for its final adapter, RUN/step-N for a checkpoint.", metavar="REF"
        ),
    ],
    to: Annotated[
        str,
        typer.Option("--to", help="New folder, s3://BUCKET/PREFIX, or hf:ORG/NAME.", metavar="TO"),
    ],
    best: Annotated[
        bool,
        typer.Option("--best", help="The checkpoint with the best score on held-out examples."),
    ] = False,
    merged: Annotated[
        bool, typer.Option("--merged", help="A whole model, with the adapter merged into it.")
    ] = False,
    gguf: Annotated[
        bool, typer.Option("--gguf", help="The merged model as one GGUF file, for llama.cpp.")
    ] = False,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            help="Folder of the base model; by default it is downloaded.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    llama_cpp: Annotated[
        Path | None,
        typer.Option("--llama-cpp", help="Folder of llama.cpp, which --gguf converts with."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Identifier of its licence, such as apache-2.0."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Write an adapter in the layout of another tool.

    It is checked, and gets a model card, a note on licences and the digests of its files. Without
    --merged it is an adapter of PEFT, which vLLM and SGLang load, too. Prints where it is.

    Example: flash export flash-1795370000-3fa9c1d2 --best --to my-adapter
    """
    parsed = parse_with_best(ref, best, "export")
    target = parse_target(to)
    if llama_cpp is not None and not gguf:
        raise UsageFailure(
            "--llama-cpp is what --gguf converts with", "add --gguf, or leave --llama-cpp out"
        )
    converter = merging.find_converter(llama_cpp) if gguf else None
    if merged or gguf:
        merging.check_libraries()
    elif base is not None:
        raise UsageFailure(
            "--base is what --merged merges into", "add --merged, or leave --base out"
        )
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UsageFailure(
            f"{licence!r} is not the identifier of a licence", "name one such as apache-2.0"
        )
    wanted = ExportOptions(parsed, best, target, merged or gguf, converter, base, licence)
    _export(wanted, namespace, context)
    terminal.write(str(target))


class ExportOptions(NamedTuple):
    """What the options ask for."""

    ref: Ref
    best: bool
    target: ExportTarget
    merged: bool
    converter: Path | None
    base: Path | None
    licence: str | None


class _Fetched(NamedTuple):
    """What was downloaded."""

    ref: Ref
    stored: StoredAdapter
    base: Path | None


def _export(wanted: ExportOptions, namespace: str | None, context: str | None) -> None:
    """Download, check, merge and deliver.

    Only what waits for the network runs in an event loop: in it, the first Ctrl-C would wait for
    the end of a merge.
    """
    target = wanted.target
    with errors_as_failures():
        check_target(target)
    parent = target.above if isinstance(target, FolderTarget) else None
    with tempfile.TemporaryDirectory(
        dir=parent, prefix=".flash-", ignore_cleanup_errors=True
    ) as scratch:
        folder = Path(scratch) / "adapter"
        ref, stored, base = asyncio.run(_fetch(wanted, folder, namespace, context))
        config = check_adapter(folder)
        given = HandOff(str(ref), stored.run, stored.commit.manifest, wanted.licence)
        if base is not None:
            given = given._replace(gguf=wanted.converter is not None)
            folder, given = _merge(wanted, base, folder, given)
        digest = write_handoff_files(folder, config, given)
        with errors_as_failures():
            deliver(folder, target)
    terminal.say(f"{ref} was exported; SHA-256 of its SHA256SUMS: {digest}")


async def _fetch(
    wanted: ExportOptions, folder: Path, namespace: str | None, context: str | None
) -> _Fetched:
    """Download the adapter to ``folder`` and, if it is to be merged, the base model beside it."""
    async with connect(context, namespace) as session:
        ref = wanted.ref
        if wanted.best:
            found = await find_best(session, ref.run)
            ref = found.ref
            terminal.say(found.sentence)
        stored = await session.with_store(
            lambda store: _download(store, session.namespace, ref, folder)
        )
        base = wanted.base
        if wanted.merged and base is None:
            base = await _fetch_base(session, stored.run.model, folder.with_name("base"))
    return _Fetched(ref, stored, base)


def _download(store: "Store", namespace: str, ref: Ref, folder: Path) -> StoredAdapter:
    """Download the files of an adapter, which are compared with its manifest."""
    prefix = names.run_name_prefix(namespace, ref.run)
    entries = {entry.key: entry for entry in store.list(prefix)}
    stored = read_adapter(store, namespace, ref, entries)
    found = stored and adapter_files(stored.commit.manifest)
    if stored is None or found is None:
        raise explain_missing(ref, namespace, entries)
    part = folder.with_name("download")
    store.download_files(stored.commit.marker.prefix, found.files, part)
    (part / found.folder).rename(folder)
    return stored


async def _fetch_base(session: ClusterSession, model: ResolvedModel, folder: Path) -> Path:
    """Download the base model, as the run had it."""
    if model.source is Source.HUB:
        await in_daemon_thread(lambda: model_source.download(model.id, model.revision, folder))
        return folder
    model_source.refuse_unreadable_mirror(await session.get_platform(), model)
    terminal.say(f"downloading {model.id} from the platform's mirror")
    prefix = names.model_prefix(model.id, model.revision)
    await session.with_store(lambda store: store.download_folder(prefix, folder))
    return folder


def _merge(
    wanted: ExportOptions, base: Path, adapter: Path, given: HandOff
) -> tuple[Path, HandOff]:
    """Return the folder of the merged model, or of its GGUF file, and what was measured."""
    terminal.say(f"merging {given.ref} into {given.run.model.id}")
    folder = adapter.with_name("merged")
    check = merging.merge(base, adapter, folder)
    terminal.say(
        f"loaded again: {check.same} of {check.tokens} greedy tokens as with PEFT, "
        f"log-probabilities within {check.difference:.3g}"
    )
    if wanted.converter is not None:
        converted = adapter.with_name("gguf")
        converted.mkdir()
        merging.convert(wanted.converter, folder, converted / merging.GGUF_FILE)
        folder = converted
    return folder, given._replace(merged=check)
