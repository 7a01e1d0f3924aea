"""An environment folder as one file, and back.

Packing is deterministic: equal content gives equal bytes and so an equal digest. What stays here is
said, and what looks like a secret does not leave: a package is read by everyone who may train on
it. Taking packages apart is ``flashrun.archive``'s, which pods use too.
"""

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from flashrun import archive
from flashrun.api import secret_patterns
from flashrun.archive import MEMBERS_LIMIT, PACKED_LIMIT, UNPACKED_LIMIT
from flashrun.cli.output.failure import UsageFailure

ENTRY_FILE: Final = "environment.py"

_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules"})
_DATA_SUFFIXES: Final = frozenset({".jsonl", ".json", ".csv", ".tsv", ".txt"})
_RANDOM: Final = "a random key"
"""What is known by its randomness alone; random text is what data may well be made of."""
_MARKERS: Final = (
    *("PRIVATE KEY", "sk-", "rk-", "k_live_", "k_test_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    *("github_pat_", "glpat-", "hf_", "AKIA", "ASIA", "AIza", "xox", "npm_", "pypi-", "eyJ"),
    *("earer", "EARER", "://"),
)
"""What every token has in it that is known by its shape; most lines of data have none of these."""
_SHOWN: Final = 10
"""Most places that one refusal lists."""


class Package(NamedTuple):
    """A packed environment."""

    data: bytes
    digest: str
    """SHA-256 of ``data`` in hex."""
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """What lies in the folder and was not packed; folders end in ``/``."""


def pack(folder: Path, allowed: Sequence[str] = ()) -> Package:
    """Pack the files of ``folder``; hidden files, caches and virtual environments stay here.

    ``allowed`` are files that are packed although something in them looks like a secret.

    Raises:
        UsageFailure: the folder is no environment, is too large, holds links or secrets.
    """
    if not folder.is_dir():
        raise UsageFailure(f"{folder} is not a folder")
    if not (folder / ENTRY_FILE).is_file():
        raise UsageFailure(
            f"{folder} has no {ENTRY_FILE}, which must define load_environment",
            "flash env setup writes one to begin with",
        )
    left_out: list[Path] = []
    paths = list(_files(folder, left_out))
    _check_size(folder, paths)
    contents = {path.relative_to(folder).as_posix(): _read(path) for path in paths}
    _check_secrets(folder, {k: v for k, v in contents.items() if k not in allowed})
    data = _packed(contents)
    if len(data) > PACKED_LIMIT:
        raise UsageFailure(
            f"{folder} packs to {len(data):,} bytes; at most {PACKED_LIMIT:,} are allowed"
        )
    stayed = (f"{path.relative_to(folder)}{'/' if path.is_dir() else ''}" for path in left_out)
    return Package(data, hashlib.sha256(data).hexdigest(), tuple(contents), tuple(stayed))


def unpack(data: bytes, folder: Path) -> None:
    """Unpack a package into ``folder``, which is made; raises ``UsageFailure``."""
    try:
        archive.unpack(io.BytesIO(data), folder)
    except archive.ArchiveError as error:
        raise UsageFailure(f"the package {error}") from None


def _files(folder: Path, left_out: list[Path]) -> Iterator[Path]:
    """Yield the files to pack, in an order that does not depend on the file system."""
    for place, folders, files in os.walk(folder):
        inner = {name for name in folders if not _stays(Path(place, name))}
        for name in sorted((*files, *folders)):
            path = Path(place, name)
            if _stays(path):
                left_out.append(path)
            elif path.is_symlink():
                raise UsageFailure(f"{path} is a link; copy what it points to into the folder")
            elif path.is_file():
                yield path
            elif not path.is_dir():
                raise UsageFailure(f"{path} is neither a file nor a folder")
        folders[:] = sorted(inner)


def _stays(path: Path) -> bool:
    name = path.name
    hidden = name.startswith(".") or name in _LEFT_OUT or name.endswith(".pyc")
    return hidden or (path / "pyvenv.cfg").is_file()


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageFailure(f"cannot read {path}: {error.strerror}") from None


def _check_secrets(folder: Path, contents: dict[str, bytes]) -> None:
    found = [
        f"{folder / name}:{line} looks as if it held {what}"
        for name, data in contents.items()
        for line, what in secrets_in(name, data)
    ]
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UsageFailure(
            f"{'; '.join(found[:_SHOWN])}{more}; nothing is published",
            "read it from os.environ and list its name in [environment].secrets; "
            "if it is no secret: --allow FILE",
        )


def secrets_in(name: str, data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the number of each line of a text file that looks secret, and what it looks like."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    is_data = Path(name).suffix in _DATA_SUFFIXES
    for number, line in enumerate(text.split("\n"), 1):
        if is_data and not any(marker in line for marker in _MARKERS):
            continue
        what = secret_patterns.secret_value(line)
        if what is not None and not (is_data and what == _RANDOM):
            yield number, what


def _packed(contents: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0, compresslevel=6) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()
