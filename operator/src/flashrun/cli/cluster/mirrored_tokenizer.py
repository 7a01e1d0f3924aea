"""The tokenizer of a model in the platform's mirror: what a check needs of it, without its weights.

The files are cached on this machine. Every use reads the model's manifest, and compares the cached
files with it.
"""

import shutil
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flashrun.api import names
from flashrun.api.catalog import Source
from flashrun.api.public import PublicPlatform
from flashrun.api.records import FileEntry, Manifest
from flashrun.api.trainable_models import TOKENIZER_FILES
from flashrun.cli.cluster import mirror
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.config import platform_cache
from flashrun.cli.output.failure import Failure, NotFoundFailure
from flashrun.store_errors import KeyNotFound, StoreError

if TYPE_CHECKING:
    from flashrun.store import Store

SIZE_LIMIT: Final = 256 * 1024 * 1024
"""Most bytes of a tokenizer's files together; the largest ones have some 40 MB."""
_WEIGHTS_INDEX: Final = "*.safetensors.index.json"


async def fetch_tokenizer(session: ClusterSession, model: str, revision: str | None) -> Path:
    """Return a folder with the tokenizer, the chat template and the config of a mirrored model.

    Without a ``revision`` it is the one that the platform's catalog names. The keys of the
    namespace's people are used.

    Raises:
        Failure: it cannot be read, or differs from its manifest.
        NotFoundFailure: the mirror does not have it.
    """
    platform = await session.get_platform() if revision is None else None
    return await session.with_store(
        lambda store: cached_tokenizer(
            store, model, revision or served_revision(store, model, platform)
        )
    )


def served_revision(store: "Store", model: str, platform: PublicPlatform | None) -> str:
    """Return the mirror's revision of ``model`` that runs get; raises ``NotFoundFailure``."""
    served = platform.catalog().get(model) if platform is not None else None
    if served is not None and served.source is Source.MIRROR:
        return served.revision
    if platform is None:
        problem = "the platform's catalog cannot be read in this namespace"
    elif served is None:
        problem = f"the platform's catalog has no model {model}"
    else:
        problem = f"{model} is in the platform's catalog, but runs get it from the hub"
    if revisions := _revisions(store, model):
        hint = f"the mirror has it as {', '.join(f'{model}@{name}' for name in revisions)}"
    elif served is None:
        problem, hint = f"{problem}, and the mirror has none", "flash models lists those of runs"
    else:
        problem = f"{problem}, and it is not in the mirror"
        hint = f"the platform's administrator mirrors it: flash model push {model} --id {model}"
    raise NotFoundFailure(problem, hint)


def _revisions(store: "Store", model: str) -> list[str]:
    """Return the complete revisions of a model in the mirror."""
    prefix, marker = f"{names.MODELS_PREFIX}{model}/", f"/{names.MANIFEST}"
    keys = (entry.key.removeprefix(prefix) for entry in store.list(prefix))
    return [
        key.removesuffix(marker) for key in keys if key.endswith(marker) and key.count("/") == 1
    ]


def cached_tokenizer(store: "Store", model: str, revision: str) -> Path:
    """Return the folder of the cached files, downloaded as far as they are not there intact."""
    files = _tokenizer_files(store, model, revision)
    cache = platform_cache.cache_folder() / "tokenizers"
    folder = cache / f"{model.replace('/', '--')}-{mirror.content_revision(files)}"
    if not _is_intact(folder, files):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as scratch:
                part = Path(scratch, "model")
                store.download_files(names.model_prefix(model, revision), files, part)
                _move(part, folder, files)
        except OSError as error:
            raise Failure(
                f"nothing can be cached in {cache}: {error}", "set XDG_CACHE_HOME to another folder"
            ) from None
    return folder


def _tokenizer_files(store: "Store", model: str, revision: str) -> list[FileEntry]:
    """Return those files of a mirrored model that its tokenizer needs, within their bounds."""
    what = f"{model} at revision {revision}"
    try:
        manifest = store.get_json(names.model_manifest_key(model, revision), Manifest)
    except KeyNotFound:
        hint = "flash models lists the models of runs"
        raise NotFoundFailure(f"the mirror has no model {what}", hint) from None
    except StoreError as error:
        raise Failure(f"the mirror's {what} cannot be read: {error}") from None
    files = [
        file
        for file in manifest.files
        if any(fnmatchcase(file.path, pattern) for pattern in TOKENIZER_FILES)
        and not fnmatchcase(file.path, _WEIGHTS_INDEX)
    ]
    if sum(file.size for file in files) > SIZE_LIMIT:
        raise Failure(
            f"the tokenizer's files of {what} are longer than {SIZE_LIMIT // 2**20} MiB together"
        )
    return files


def _is_intact(folder: Path, files: Sequence[FileEntry]) -> bool:
    """Return whether ``folder`` has these files and no others."""
    try:
        paths = (path for path in folder.rglob("*") if path.is_file())
        there = {path.relative_to(folder).as_posix() for path in paths}
        wanted = [file.path for file in files]
        return there == set(wanted) and (
            mirror.hash_files(folder, wanted, lambda _: None) == tuple(files)
        )
    except OSError:
        return False


def _move(part: Path, folder: Path, files: Sequence[FileEntry]) -> None:
    """Put a download in its place; another command may have done it meanwhile."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        part.rename(folder)
    except OSError:
        if not _is_intact(folder, files):
            raise
