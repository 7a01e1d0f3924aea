"""The model mirror of the platform: what it holds, and how a model gets into it.

A model is below ``models/<id>/<revision>/``. Its manifest is written last, and it is complete when
the manifest is there. Each file carries its SHA-256, so that a push that was interrupted goes on
where it ended, and never writes over the files of another content.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from flashrun.api import names
from flashrun.api.records import FileEntry, Manifest, ModelFacts
from flashrun.cli.output.failure import NotFoundFailure, UsageFailure
from flashrun.plan.mirrored_models import RevisionVerdict, judge_revision
from flashrun.store_errors import Corrupt, KeyExists, KeyNotFound

if TYPE_CHECKING:
    from flashrun.store import Store

_CHUNK: Final = 1024 * 1024
_REVISION_DIGITS: Final = 12


class MirroredModel(NamedTuple):
    """One revision of a model in the mirror."""

    model: str
    revision: str
    size: int
    """Bytes of all its files."""
    manifest: Manifest | None
    """None while its push is not complete, or when it cannot be read."""
    verdict: RevisionVerdict | None
    """Whether runs could use it without an entry in the catalog; None without a manifest."""


def list_models(store: "Store") -> list[MirroredModel]:
    """Return every revision of every model, also those whose push is not complete."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for entry in store.list(names.MODELS_PREFIX):
        parts = entry.key.removeprefix(names.MODELS_PREFIX).split("/", 3)
        if len(parts) == 4:
            found.setdefault(("/".join(parts[:2]), parts[2]), {})[parts[3]] = entry.size
    return [_mirrored_model(store, *key, sizes) for key, sizes in sorted(found.items())]


def _mirrored_model(
    store: "Store", model: str, revision: str, sizes: dict[str, int]
) -> MirroredModel:
    size = sum(sizes.values())
    if names.MANIFEST not in sizes:
        return MirroredModel(model, revision, size, None, None)
    try:
        manifest = store.get_json(names.model_manifest_key(model, revision), Manifest)
    except (KeyNotFound, Corrupt) as error:
        verdict = judge_revision(model, revision, str(error), sizes)
        return MirroredModel(model, revision, size, None, verdict)
    verdict = judge_revision(model, revision, manifest, sizes)
    return MirroredModel(model, revision, size, manifest, verdict)


def read_manifest(store: "Store", model: str, revision: str) -> Manifest | None:
    """Return the manifest of a model, or None when there is none, or none that can be read."""
    try:
        return store.get_json(names.model_manifest_key(model, revision), Manifest)
    except (KeyNotFound, Corrupt):
        return None


def hash_files(
    folder: Path, files: Sequence[str], read: Callable[[int], None]
) -> tuple[FileEntry, ...]:
    """Return size and SHA-256 of ``files`` of ``folder``; ``read`` gets the bytes of each part."""
    entries = []
    for name in files:
        digest, size = hashlib.sha256(), 0
        with (folder / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                read(len(chunk))
        entries.append(FileEntry(path=name, size=size, sha256=digest.hexdigest()))
    return tuple(entries)


def content_revision(files: Sequence[FileEntry]) -> str:
    """Return a revision that follows from the content: equal files give the same one."""
    lines = sorted(f"{file.sha256} {file.path}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:_REVISION_DIGITS]


def upload(
    store: "Store",
    model: str,
    revision: str,
    folder: Path,
    files: Sequence[FileEntry],
    facts: ModelFacts,
    sent: Callable[[int], None],
) -> bool:
    """Upload what is missing of a model, its manifest last; return False if all was there.

    ``facts`` are completed in the manifest of an earlier version, which has none. ``sent`` gets the
    bytes of each part that is uploaded, or found to be there.

    Raises:
        UsageFailure: this revision has another content, or another push is not complete, or a file
            changed meanwhile.
    """
    prefix, found = names.model_prefix(model, revision), read_manifest(store, model, revision)
    if found is not None:
        if set(found.files) != set(files):
            raise _other_content(model, revision)
        if found.model is None:
            store.put_json(prefix + names.MANIFEST, found.replace(model=facts, base_model=model))
        sent(sum(file.size for file in files))
        return False
    stored = {file.path: store.stored_file(prefix + file.path) for file in files}
    if any(there and there != file for file in files if (there := stored[file.path])):
        raise UsageFailure(
            f"a push of other files as {model} at revision {revision} is not complete",
            f"choose another --revision, or remove it: flash model delete {model} "
            f"--revision {revision}",
        )
    for file in files:
        if stored[file.path]:
            sent(file.size)
        elif store.put_file(prefix + file.path, folder / file.path, file.sha256, sent) != file:
            store.delete([prefix + file.path])
            raise UsageFailure(f"{folder / file.path} changed during the upload", "push it again")
    manifest = Manifest(
        kind="model",
        base_model=model,
        model=facts,
        created=datetime.now(UTC),
        files=tuple(files),
    )
    try:
        store.create_json(prefix + names.MANIFEST, manifest)
    except KeyExists:  # somebody else has pushed it at the same time
        raise _other_content(model, revision) from None
    return True


def delete(store: "Store", model: str, revision: str) -> int:
    """Delete one revision, its manifest first; return how many files it had.

    Raises:
        NotFoundFailure: there is nothing of this revision.
    """
    prefix = names.model_prefix(model, revision)
    keys = [entry.key for entry in store.list(prefix)]
    if not keys:
        raise NotFoundFailure(
            f"the mirror has no model {model} at revision {revision}",
            "flash model list shows what there is",
        )
    # An interrupted deletion leaves files that no manifest lists, and no manifest without files.
    store.delete(sorted(keys, key=lambda key: key != prefix + names.MANIFEST))
    return len(keys)


def _other_content(model: str, revision: str) -> UsageFailure:
    return UsageFailure(
        f"{model} at revision {revision} is in the mirror with other files, and runs rely on it",
        "choose another --revision; without one, it follows from the content",
    )
