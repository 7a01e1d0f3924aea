"""What a listing shows of each folder with a manifest, in a few bytes.

Writers choose how many files there are and what they are called, so nothing of that is kept: a
digest says whether the files are those that a manifest lists, and a mark whether anything has
changed since the manifest was read.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple, Protocol

from flashrun.api import names

_STATE: Final = "state/"
_DIGEST_BYTES: Final = 16
_MODULUS: Final = 2 ** (8 * 16)


class ListedKey(Protocol):
    """One key of a listing."""

    @property
    def key(self) -> str:
        """The whole key."""

    @property
    def size(self) -> int:
        """Bytes of its object."""

    @property
    def etag(self) -> str:
        """It changes with the object."""


class ListedFolder(NamedTuple):
    """A folder that has a manifest; of a checkpoint, newer ones compare greater."""

    step: int
    """0 for the final adapter."""
    attempt: int
    """0 for the final adapter."""
    size: int
    """Bytes of the manifest."""
    files: int
    """Digest of the files, as ``digest_files`` returns it."""
    mark: bytes
    """It changes when the manifest or a file does."""


def listed_checkpoints(prefix: str, listing: Iterable[ListedKey]) -> Iterator[ListedFolder]:
    """Yield the checkpoints of the run at ``prefix`` with a manifest.

    The keys of one folder are neighbours in ``listing``, as they are wherever keys are ordered.
    """

    def place(item: ListedKey) -> tuple[int, int] | None:
        step_key = names.parse_step_key(prefix, item.key)
        return step_key and (step_key.step, step_key.attempt)

    for found, items in groupby(listing, place):
        if found is not None:
            step, attempt = found
            folder = names.step_prefix(prefix, attempt, step)
            yield from _listed_folder(folder, items, step, attempt)


def listed_adapter(prefix: str, listing: Iterable[ListedKey]) -> ListedFolder | None:
    """Return the final adapter of the run at ``prefix`` if it has a manifest."""
    return next(_listed_folder(names.adapter_prefix(prefix), listing), None)


def digest_files(files: Iterable[tuple[str, int]]) -> int:
    """Return a digest of paths and sizes, whatever their order."""
    total = 0
    for path, size in files:
        text = f"{size} {path}".encode(errors="surrogatepass")
        total += int.from_bytes(hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest())
    return total % _MODULUS


def _listed_folder(
    folder: str, items: Iterable[ListedKey], step: int = 0, attempt: int = 0
) -> Iterator[ListedFolder]:
    """Yield the folder if it has a manifest; the trainer's state in it comes and goes."""
    manifests: list[tuple[int, str]] = []

    def files() -> Iterator[tuple[str, int]]:
        for item in items:
            path = item.key.removeprefix(folder)
            if path == names.MANIFEST:
                manifests.append((item.size, item.etag))
            elif path != names.STATE_MANIFEST and not path.startswith(_STATE):
                yield path, item.size

    digest = digest_files(files())
    for size, etag in manifests[:1]:
        text = f"{folder} {size} {etag} {digest}".encode(errors="surrogatepass")
        mark = hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()
        yield ListedFolder(step, attempt, size, digest, mark)
