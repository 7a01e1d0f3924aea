"""An environment folder becomes one file and comes back, and nothing else does."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flashrun.cli import package
from flashrun.cli.failure import UsageFailure


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "env"
    (found / "dataset").mkdir(parents=True)
    (found / "environment.py").write_text("def load_environment(): ...\n")
    (found / "dataset" / "train.jsonl").write_text('{"input": "é"}\n')
    return found


def test_equal_content_has_an_equal_digest(folder: Path, tmp_path: Path) -> None:
    first = package.pack(folder)
    package.unpack(first.data, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "environment.py", (1, 1))
    (tmp_path / "copy" / "environment.py").chmod(0o600)

    assert package.pack(tmp_path / "copy") == first
    (folder / "environment.py").write_text("def load_environment(): return 1\n")
    assert package.pack(folder).digest != first.digest


def test_what_is_nobodys_business_stays_here(folder: Path) -> None:
    for name in (".env", ".git/config", "__pycache__/x.pyc", "a.pyc", "venv/lib.py", ".hidden"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("SERVICE_API_KEY=secret")

    packed = package.pack(folder)

    assert packed.files == ("environment.py", "dataset/train.jsonl")
    assert b"secret" not in gzip.decompress(packed.data)


def too_many(folder: Path) -> None:
    for number in range(package.MEMBERS_LIMIT):
        (folder / f"{number}.txt").touch()


def too_large(folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        file.truncate(package.UNPACKED_LIMIT)


NOT_PACKED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no environment.py": (
        lambda folder: (folder / "environment.py").unlink(),
        "has no environment.py",
    ),
    "a link to a file": (lambda folder: (folder / "x").symlink_to("/etc/passwd"), "is a link"),
    "a link to a folder": (lambda folder: (folder / "x").symlink_to("/etc"), "is a link"),
    "a pipe": (lambda folder: os.mkfifo(folder / "x"), "is neither a file nor a folder"),
    "too many files": (too_many, "at most 5,000"),
    "too many bytes": (too_large, "at most 268,435,456"),
}


@pytest.mark.parametrize(("spoil", "sentence"), NOT_PACKED.values(), ids=NOT_PACKED)
def test_it_is_not_packed(folder: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    spoil(folder)

    with pytest.raises(UsageFailure, match=sentence):
        package.pack(folder)


def archive(*members: tuple[str, bytes, bytes]) -> bytes:
    """Return a package of members: name, type and content or target."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content.decode()
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


FILE = tarfile.REGTYPE
NOT_UNPACKED = {
    "an absolute path": (archive(("/tmp/x", FILE, b"")), "outside its folder"),
    "a path out": (archive(("a/../../x", FILE, b"")), "outside its folder"),
    "a backslash": (archive(("..\\x", FILE, b"")), "outside its folder"),
    "a link": (archive(("x", tarfile.SYMTYPE, b"/etc/passwd")), "no plain file"),
    "a hard link": (archive(("x", tarfile.LNKTYPE, b"/etc/passwd")), "no plain file"),
    "a device": (archive(("x", tarfile.CHRTYPE, b"")), "no plain file"),
    "too many": (archive(*((f"{n}", FILE, b"") for n in range(5001))), "more than 5,000"),
    "no archive": (b"hello", "cannot be unpacked"),
    "half an archive": (archive(("x", FILE, os.urandom(10_000)))[:5000], "cannot be unpacked"),
}


BOMBS = {
    "a large file": archive(("x", FILE, bytes(10**7))),
    "many files": archive(*((f"{n}", FILE, bytes(10**4)) for n in range(1000))),
    "a large header": archive(("x" * 10**7, FILE, b"")),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_bomb_goes_off_at_the_limit(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "UNPACKED_LIMIT", 1_000_000)

    with pytest.raises(UsageFailure, match="unpacks to more than 1,000,000 bytes"):
        package.unpack(data, tmp_path / "inside")


@pytest.mark.parametrize(("data", "sentence"), NOT_UNPACKED.values(), ids=NOT_UNPACKED)
def test_it_is_not_unpacked(data: bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageFailure, match=sentence):
        package.unpack(data, tmp_path / "inside")

    assert not (tmp_path / "x").exists()
