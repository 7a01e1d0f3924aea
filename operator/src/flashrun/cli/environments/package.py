"""Pack an environment folder into one file, and unpack it.

Packing is deterministic: equal content gives equal bytes and so an equal digest. Files that are not
packed are listed, and files that seem to hold a secret are refused, as everyone who may train on
the environment can read its package. Unpacking is done by ``flashrun.archive``, as in pods.
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
from flashrun.api import secret_patterns, verifiers_packages
from flashrun.api.trainer_modules import SHADOWING_HINT, shadowing_files
from flashrun.api.verifiers_packages import (
    ENTRY_FILE,
    PROJECT_FILE,
    VERSION,
    VerifiersEntry,
)
from flashrun.archive import MEMBERS_LIMIT, PACKED_LIMIT, UNPACKED_LIMIT
from flashrun.cli.output.failure import UsageFailure

_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules"})
_DATA_SUFFIXES: Final = frozenset({".jsonl", ".json", ".csv", ".tsv", ".txt"})
_RANDOM_KEY: Final = "a random key"
"""The kind of secret that is recognised only by being random; data may contain random text."""
_MARKERS: Final = (
    *("PRIVATE KEY", "sk-", "rk-", "k_live_", "k_test_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    *("github_pat_", "glpat-", "hf_", "AKIA", "ASIA", "AIza", "xox", "npm_", "pypi-", "eyJ"),
    *("earer", "EARER", "://"),
)
"""Parts of which every token with a known form has one; lines without one are skipped quickly."""
_TOO_LARGE: Final = "remove files that the environment does not need"
_PLACES_LISTED: Final = 10
"""Most places that one error lists."""


class Package(NamedTuple):
    """A packed environment."""

    data: bytes
    digest: str
    """SHA-256 of ``data`` in hex."""
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """What is in the folder and was not packed; folders end in ``/``."""


def pack(folder: Path, allowed: Sequence[str] = ()) -> Package:
    """Pack the files of ``folder``, without hidden files, caches and virtual environments.

    ``allowed`` are files that are packed although they seem to hold a secret.

    Raises:
        UsageFailure: the folder is not an environment, is too large, holds links or secrets, or
            has a module with the name of one that the trainer imports.
    """
    entry = check_is_environment(folder)
    left_out: list[Path] = []
    paths = list(files_to_pack(folder, left_out))
    _check_size(folder, paths)
    if entry is None:  # one of verifiers runs in a process of its own
        _check_modules(folder, paths)
    contents = {path.relative_to(folder).as_posix(): _read(path) for path in paths}
    _check_secrets(folder, {k: v for k, v in contents.items() if k not in allowed})
    data = _compress(contents)
    if len(data) > PACKED_LIMIT:
        raise UsageFailure(
            f"{folder} packs to {len(data):,} bytes; at most {PACKED_LIMIT:,} are allowed",
            _TOO_LARGE,
        )
    left_out_names = (
        f"{path.relative_to(folder)}{'/' if path.is_dir() else ''}" for path in left_out
    )
    return Package(data, hashlib.sha256(data).hexdigest(), tuple(contents), tuple(left_out_names))


def check_is_environment(folder: Path) -> VerifiersEntry | None:
    """Return the entry of an environment of ``verifiers``; None for one of the environment SDK.

    Raises:
        UsageFailure: the folder holds neither, or needs a version of verifiers that runs lack.
    """
    if not folder.is_dir():
        raise UsageFailure(f"{folder} is not a folder")
    texts = (
        path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        for path in (folder / ENTRY_FILE, folder / PROJECT_FILE)
    )
    entry = verifiers_packages.find_entry(*texts)
    if entry is None and not (folder / ENTRY_FILE).is_file():
        raise UsageFailure(
            f"{folder} has no {ENTRY_FILE} with load_environment, nor a {PROJECT_FILE} that "
            "depends on verifiers",
            "flash env setup writes one to begin with",
        )
    if entry is not None and (excluding := verifiers_packages.excluding(entry.requirements)):
        raise UsageFailure(
            f"{folder / PROJECT_FILE} needs {excluding!r}, and runs use verifiers {VERSION}, the "
            "last version whose environments have load_environment and rubrics",
            f"let it take verifiers=={VERSION}; later versions have another API",
        )
    return entry


def unpack(data: bytes, folder: Path) -> None:
    """Unpack a package into ``folder``; raises ``UsageFailure`` when it is not a valid package."""
    try:
        archive.unpack(io.BytesIO(data), folder)
    except archive.ArchiveError as error:
        raise UsageFailure(f"the package {error}") from None


def files_to_pack(folder: Path, left_out: list[Path]) -> Iterator[Path]:
    """Yield the files to pack in a fixed order; add what is not packed to ``left_out``."""
    for current, folders, files in os.walk(folder):
        inner = {name for name in folders if not _is_left_out(Path(current, name))}
        for name in sorted((*files, *folders)):
            path = Path(current, name)
            if _is_left_out(path):
                left_out.append(path)
            elif path.is_symlink():
                raise UsageFailure(f"{path} is a link; copy what it points to into the folder")
            elif path.is_file():
                yield path
            elif not path.is_dir():
                raise UsageFailure(f"{path} is neither a file nor a folder")
        folders[:] = sorted(inner)


def _is_left_out(path: Path) -> bool:
    name = path.name
    hidden = name.startswith(".") or name in _LEFT_OUT or name.endswith(".pyc")
    return hidden or (path / "pyvenv.cfg").is_file()


def _check_size(folder: Path, paths: list[Path]) -> None:
    if len(paths) > MEMBERS_LIMIT:
        raise UsageFailure(
            f"{folder} holds {len(paths):,} files; at most {MEMBERS_LIMIT:,} are allowed",
            _TOO_LARGE,
        )
    total = sum(path.stat().st_size for path in paths)
    if total > UNPACKED_LIMIT:
        raise UsageFailure(
            f"{folder} holds {total:,} bytes; at most {UNPACKED_LIMIT:,} are allowed", _TOO_LARGE
        )


def _check_modules(folder: Path, paths: list[Path]) -> None:
    files = shadowing_files(path.relative_to(folder).as_posix() for path in paths)
    if files:
        raise UsageFailure(
            f"{folder / files[0]} has the name of a module that the trainer imports",
            SHADOWING_HINT,
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageFailure(f"cannot read {path}: {error.strerror}") from None


def _check_secrets(folder: Path, contents: dict[str, bytes]) -> None:
    places = [
        f"{folder / name}:{line} seems to hold {what}"
        for name, data in contents.items()
        for line, what in secrets_in(name, data)
    ]
    if places:
        more = f"; and {len(places) - _PLACES_LISTED} more" if len(places) > _PLACES_LISTED else ""
        raise UsageFailure(
            f"{'; '.join(places[:_PLACES_LISTED])}{more}; nothing is published",
            "read it from os.environ and list its name in [environment].secrets; "
            "if it is not a secret, add --allow FILE",
        )


def secrets_in(name: str, data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the number of each line that seems to hold a secret, and the kind of secret."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    is_data = Path(name).suffix in _DATA_SUFFIXES
    for number, line in enumerate(text.split("\n"), 1):
        if is_data and not any(marker in line for marker in _MARKERS):
            continue
        what = secret_patterns.describe_secret(line)
        if what is not None and not (is_data and what == _RANDOM_KEY):
            yield number, what


def _compress(contents: dict[str, bytes]) -> bytes:
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
