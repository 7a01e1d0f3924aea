"""Unpacking environment packages, and the rules for what they may contain.

The command line and the trainer unpack with the same function, and do not trust the author of a
package: links, devices and paths outside the folder are refused, sizes are limited, and file modes
are ignored.
"""

import gzip
import io
import stat
import struct
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final, Self

PACKED_LIMIT: Final = 64 * 1024 * 1024
"""Largest package, in bytes."""
UNPACKED_LIMIT: Final = 256 * 1024 * 1024
"""Largest unpacked size of a package, in bytes."""
MEMBERS_LIMIT: Final = 5000
"""Largest number of files and folders in a package."""

HEADER_LIMIT: Final = 64 * 1024
"""Largest extended header, such as a long name, in bytes: it is read at once."""

_CHUNK: Final = 1024 * 1024
_LONGEST: Final = 300
"""Longest problem, in characters: names in an archive may be much longer."""
_EXTENDED: Final = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
"""Types of headers that are about the next member, or about all."""
_UNREADABLE: Final = (
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    ArithmeticError,
    RecursionError,  # extended headers that follow each other
)
"""What the standard library raises for bytes that are not an archive."""


class ArchiveError(Exception):
    """A package is refused; ``str`` is a short predicate whose subject is the package."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]}…")


def unpack(packed: IO[bytes], folder: Path) -> None:
    """Unpack plain files and folders into ``folder``, and refuse anything else.

    Raises:
        ArchiveError: the file is not a package, is too large, or contains something forbidden.
    """
    count = size = 0
    try:
        with gzip.GzipFile(fileobj=packed) as stream:
            bounded = _Bounded(stream)
            with tarfile.open(fileobj=bounded, mode="r|", tarinfo=_Header) as members:
                while (member := members.next()) is not None:
                    count, size = count + 1, size + member.size
                    _check(member, count, size)
                    _extract(members, member, folder)
                    # Each has a copy of all global headers; the types leave this list out.
                    members.members.clear()  # type: ignore[attr-defined]
            while bounded.read(_CHUNK):
                pass  # gzip checks its checksum at the end
    except _UNREADABLE as error:
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


class _Header(tarfile.TarInfo):
    """A member of an archive; an extended header of limited length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header; raises ``ArchiveError`` for one that would take much memory."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED and header.size > HEADER_LIMIT:
            raise ArchiveError(f"has a header of more than {HEADER_LIMIT:,} bytes")
        return header


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
