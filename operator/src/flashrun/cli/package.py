"""An environment folder as one file, and back.

Packing is deterministic: equal content gives equal bytes and so an equal digest. Neither direction
trusts the other: links, devices and paths out of the folder are refused, and sizes are bounded.
"""

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from flashrun.cli.failure import UsageFailure

PACKED_LIMIT: Final = 64 * 1024 * 1024
UNPACKED_LIMIT: Final = 256 * 1024 * 1024
MEMBERS_LIMIT: Final = 5000
ENTRY_FILE: Final = "environment.py"

_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules", "venv"})
_CHUNK: Final = 1024 * 1024


class Package(NamedTuple):
    """A packed environment."""

    data: bytes
    digest: str
    """SHA-256 of ``data`` in hex."""
    files: tuple[str, ...]


def pack(folder: Path) -> Package:
    """Pack every file of ``folder``; hidden files, caches and virtual environments stay here.

    Raises:
        UsageFailure: the folder is no environment, or too large, or holds links.
    """
    if not folder.is_dir():
        raise UsageFailure(f"{folder} is not a folder")
    if not (folder / ENTRY_FILE).is_file():
        raise UsageFailure(
            f"{folder} has no {ENTRY_FILE}, which must define load_environment",
            "flash env setup writes one to begin with",
        )
    paths = list(_files(folder))
    _check_size(folder, paths)
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0, compresslevel=6) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in paths:
            _add(archive, path, path.relative_to(folder).as_posix())
    data = packed.getvalue()
    if len(data) > PACKED_LIMIT:
        raise UsageFailure(
            f"{folder} packs to {len(data):,} bytes; at most {PACKED_LIMIT:,} are allowed"
        )
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    return Package(data, hashlib.sha256(data).hexdigest(), names)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files to pack in an order that does not depend on the file system."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _left_out(name))
        for name in sorted(name for name in (*files, *folders) if not _left_out(name)):
            path = Path(place, name)
            if path.is_symlink():
                raise UsageFailure(f"{path} is a link; copy what it points to into the folder")
            if path.is_file():
                yield path
            elif not path.is_dir():
                raise UsageFailure(f"{path} is neither a file nor a folder")


def _left_out(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_OUT or name.endswith(".pyc")


def _check_size(folder: Path, paths: list[Path]) -> None:
    if len(paths) > MEMBERS_LIMIT:
        raise UsageFailure(
            f"{folder} holds {len(paths):,} files; at most {MEMBERS_LIMIT:,} are allowed"
        )
    total = sum(path.stat().st_size for path in paths)
    if total > UNPACKED_LIMIT:
        raise UsageFailure(
            f"{folder} holds {total:,} bytes; at most {UNPACKED_LIMIT:,} are allowed"
        )


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageFailure(f"cannot read {path}: {error.strerror}") from None
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))


def unpack(data: bytes, folder: Path) -> int:
    """Unpack a package into ``folder``, which is made, and return the number of files.

    Raises:
        UsageFailure: the package is not one, is too large, or would write outside the folder.
    """
    count = 0
    try:
        with (
            gzip.GzipFile(fileobj=io.BytesIO(data)) as stream,
            tarfile.open(fileobj=_Bounded(stream), mode="r|") as archive,
        ):
            for member in archive:
                count += 1
                if count > MEMBERS_LIMIT:
                    raise UsageFailure(f"the package has more than {MEMBERS_LIMIT:,} members")
                _extract(archive, member, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageFailure(f"the package cannot be unpacked: {error}") from None
    return count


class _Bounded(io.RawIOBase):
    """A stream that ends with an error when it is longer than a package may be."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left = UNPACKED_LIMIT + MEMBERS_LIMIT * 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size if size >= 0 else _CHUNK, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise UsageFailure(f"the package unpacks to more than {UNPACKED_LIMIT:,} bytes")
        return data


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise UsageFailure(f"the package holds {member.name!r}, which lies outside its folder")
    target = folder.joinpath(*path.parts)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    content = archive.extractfile(member) if member.isfile() else None
    if content is None:
        raise UsageFailure(f"the package holds {member.name!r}, which is no plain file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        while chunk := content.read(_CHUNK):
            file.write(chunk)
