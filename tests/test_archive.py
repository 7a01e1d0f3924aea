"""Unpacking an environment package: plain files and folders, and nothing else."""

import contextlib
import gzip
import io
import stat
import tempfile
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

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


def test_a_name_that_is_too_long_for_the_file_system_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="File name too long") as refused:
        unpacked(archives.archive(archives.member("x" * 60_000)), tmp_path)
    assert len(str(refused.value)) < 350


def any_archive(data: some.DataObject) -> bytes:
    """An archive with some strange headers, perhaps damaged, before compression or after."""
    blocks = []
    for _ in range(data.draw(some.integers(0, 4))):
        info = archives.tarfile.TarInfo(data.draw(NAMES))
        info.type = data.draw(
            some.sampled_from([b"0", b"5", b"1", b"2", b"L", b"K", b"x", b"g", b"S"])
        )
        content = data.draw(some.binary(max_size=600))
        info.size = data.draw(some.sampled_from([len(content), 0, 1, 2**33 - 1]))
        info.mode = data.draw(some.integers(0, 0o7777))
        blocks.append(
            info.tobuf(archives.tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)
        )
    text = bytearray(b"".join(blocks) + bytes(1024))
    damage(data, text)
    packed = bytearray(gzip.compress(bytes(text), 1))
    damage(data, packed)
    return bytes(packed)


NAMES = some.sampled_from(
    ["a", "a/b", "../a", "/tmp/a", "a/../../b", "..", ".", "", "a\\b", "x" * 90, "\udcff"]
)


def damage(data: some.DataObject, content: bytearray) -> None:
    for _ in range(data.draw(some.integers(0, 3))):
        content[data.draw(some.integers(0, len(content) - 1))] = data.draw(some.integers(0, 255))


@given(some.data())
@settings(max_examples=150, deadline=None)
def test_any_archive_is_unpacked_or_refused_and_writes_nothing_outside(
    data: some.DataObject,
) -> None:
    packed = any_archive(data)
    began = time.thread_time()
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside, "inside", "folder")
        folder.mkdir(parents=True)
        with contextlib.suppress(ArchiveError):
            unpack(io.BytesIO(packed), folder)
        for path in Path(outside).rglob("*"):
            assert path.is_relative_to(folder) or folder.is_relative_to(path)
            assert not path.is_symlink()
    assert time.thread_time() - began < 0.5


@given(some.binary(max_size=2000))
@settings(deadline=None)
def test_any_bytes_are_an_archive_or_are_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for packed in (content, gzip.compress(content)):
            with contextlib.suppress(ArchiveError):
                unpack(io.BytesIO(packed), Path(folder))


def test_headers_of_all_members_together_take_little_memory(tmp_path: Path) -> None:
    """A global header is about every member that follows."""
    header = "".join(f"11 {number:05}=x\n" for number in range(5_000))
    info = archives.tarfile.TarInfo("pax")
    info.type, info.size = archives.tarfile.XGLTYPE, len(header)
    block = info.tobuf() + header.encode() + bytes(-len(header) % 512)
    files = b"".join(archives.tarfile.TarInfo(f"f{number}").tobuf() for number in range(500))
    packed = io.BytesIO(gzip.compress(block + files + bytes(1024)))
    tracemalloc.start()
    unpack(packed, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(list(tmp_path.iterdir())) == 500
    assert peak < 16 * 1024**2
