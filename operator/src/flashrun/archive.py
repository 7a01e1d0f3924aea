"""Unpacking environment packages, and the rules for what they may contain.

The command line and the trainer unpack with the same function, and do not trust the author of a
package: links, devices and paths outside the folder are refused, sizes are limited, and file modes
are ignored.
"""

import gzip
import io
import stat
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final

PACKED_LIMIT: Final = 64 * 1024 * 1024
"""Largest package, in bytes."""
UNPACKED_LIMIT: Final = 256 * 1024 * 1024
"""Largest unpacked size of a package, in bytes."""
MEMBERS_LIMIT: Final = 5000
"""Largest number of files and folders in a package."""

_CHUNK: Final = 1024 * 1024


class ArchiveError(Exception):
    """A package is refused; ``str`` is a predicate whose subject is the package."""


def unpack(packed: IO[bytes], folder: Path) -> None:
    """Unpack plain files and folders into ``folder``, and refuse anything else.

    Raises:
        ArchiveError: the file is not a package, is too large, or contains something forbidden.
    """
    count = size = 0
    try:
        with gzip.GzipFile(fileobj=packed) as stream:
            bounded = _Bounded(stream)
            with tarfile.open(fileobj=bounded, mode="r|") as members:
                for member in members:
                    count, size = count + 1, size + member.size
                    _check(member, count, size)
                    _extract(members, member, folder)
            while bounded.read(_CHUNK):
                pass  # gzip checks its checksum at the end
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise ArchiveError(f"cannot be unpacked: {error}") from None


def _check(member: tarfile.TarInfo, count: int, size: int) -> None:
    name, parts = member.name, PurePosixPath(member.name).parts
    if count > MEMBERS_LIMIT:
        raise ArchiveError(f"has more than {MEMBERS_LIMIT:,} files and folders")
    if size > UNPACKED_LIMIT:
        raise _too_large()
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise ArchiveError(f"has {name!r}, which is neither a file nor a folder")
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise ArchiveError(f"has {name!r}, which would be written outside its folder")
    if stat.S_IMODE(member.mode) & (stat.S_ISUID | stat.S_ISGID):
        raise ArchiveError(f"has {name!r}, which would run as someone else")


def _extract(members: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    path = folder / member.name
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = members.extractfile(member)
    assert content is not None  # a plain file has content
    with path.open("wb") as file:
        while chunk := content.read(_CHUNK):
            file.write(chunk)


def _too_large() -> ArchiveError:
    return ArchiveError(f"unpacks to more than {UNPACKED_LIMIT:,} bytes")


class _Bounded(io.RawIOBase):
    """A stream of limited length; tar headers alone could unpack to a huge size."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left = UNPACKED_LIMIT + MEMBERS_LIMIT * 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size if size >= 0 else _CHUNK, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise _too_large()
        return data
