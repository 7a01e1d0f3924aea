"""Unpacking an environment package: plain files and folders, and nothing else."""

import io
import stat
from pathlib import Path

import pytest

from flashrun import archive
from flashrun.archive import ArchiveError, unpack
from tests.trainer import archives


def unpacked(data: bytes, folder: Path) -> dict[str, bytes]:
    """Unpack ``data``; return the files by their path."""
    unpack(io.BytesIO(data), folder)
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_files_and_folders_are_unpacked(tmp_path: Path) -> None:
    data = archives.archive(
        archives.member("environment.py", content=b"x = 1\n"),
        archives.member("dataset", archives.tarfile.DIRTYPE),
        archives.member("dataset/deep/train.jsonl", content=b"{}\n"),
    )
    assert unpacked(data, tmp_path) == {
        "environment.py": b"x = 1\n",
        "dataset/deep/train.jsonl": b"{}\n",
    }


def test_modes_are_ignored(tmp_path: Path) -> None:
    unpacked(archives.archive(archives.member("tool.sh", mode=0o777)), tmp_path)
    assert not stat.S_IMODE((tmp_path / "tool.sh").stat().st_mode) & 0o111


@pytest.mark.parametrize(
    ("data", "words"), archives.HOSTILE.values(), ids=list(archives.HOSTILE.keys())
)
def test_anything_else_is_refused_and_nothing_is_written_outside(
    tmp_path: Path, data: bytes, words: str
) -> None:
    folder = tmp_path / "inside" / "folder"
    folder.mkdir(parents=True)
    with pytest.raises(ArchiveError, match=words):
        unpack(io.BytesIO(data), folder)
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)]
    assert outside == [folder.parent]


def test_a_package_of_the_largest_size_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "UNPACKED_LIMIT", 10)
    assert unpacked(archives.archive(archives.member("a", content=b"x" * 10)), tmp_path) == {
        "a": b"x" * 10
    }
    with pytest.raises(ArchiveError, match="unpacks to more than 10 bytes"):
        unpacked(archives.archive(archives.member("b", content=b"x" * 11)), tmp_path)
