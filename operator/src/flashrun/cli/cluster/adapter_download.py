"""Download an adapter from storage, and check every file of it; nothing prints."""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flashrun.api import names
from flashrun.api.names import Ref
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.new_folder import refuse_taken_folder
from flashrun.cli.output.failure import NotFoundFailure

if TYPE_CHECKING:
    from flashrun.api.records import Manifest
    from flashrun.store import Store

_CONFIG: Final = "adapter_config.json"


async def download_adapter(session: ClusterSession, ref: Ref, folder: Path) -> None:
    """Download the adapter that ``ref`` names to a new folder.

    The folder appears whole or not at all.

    Raises:
        NotFoundFailure: nothing is saved under this reference.
        StoreError: a file is not what its manifest says, or storage cannot be read.
    """
    prefix = await find_adapter(session, ref)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _scratch_folder(folder.parent) as (scratch, abandoned):
        part = scratch / "adapter"

        def download(store: "Store") -> "Manifest":
            try:
                return store.download_folder(prefix, part)
            finally:
                if abandoned.is_set():
                    shutil.rmtree(scratch, ignore_errors=True)

        manifest = await session.with_store(download)
        adapter = next(
            (Path(file.path).parent for file in manifest.files if file.path.endswith(_CONFIG)),
            Path(),
        )
        (part / adapter).rename(folder)  # a checkpoint keeps its adapter one level down


@contextlib.contextmanager
def _scratch_folder(parent: Path) -> Iterator[tuple[Path, threading.Event]]:
    """Yield a folder that is removed at the end, and an event that says so.

    A download that is cancelled goes on in its thread for a while, and may make the folder again.
    """
    abandoned = threading.Event()
    with tempfile.TemporaryDirectory(
        dir=parent, prefix=".flash-", ignore_cleanup_errors=True
    ) as scratch:
        try:
            yield Path(scratch), abandoned
        finally:
            abandoned.set()


def new_folder(ref: Ref, given: Path | None) -> Path:
    """Return the folder to download to; raises ``UsageFailure`` if it is not new."""
    folder = given or Path(str(ref).replace("/", "-"))
    refuse_taken_folder(folder)
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
