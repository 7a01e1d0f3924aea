"""Archives that no laptop and no pod may unpack, each with words of the refusal.

One table for both: what the command line refuses on pull, the pod refuses before it trains.
"""

import gzip
import io
import os
import tarfile
from typing import Final, NamedTuple


class Member(NamedTuple):
    """A member of an archive and its content."""

    info: tarfile.TarInfo
    content: bytes


def member(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    link: str = "",
    content: bytes = b"",
    mode: int = 0o644,
) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return Member(info, content)


def archive(*members: Member) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def after_a_good_file(bad: Member) -> bytes:
    return archive(member("environment.py"), bad)


def promising(size: int) -> bytes:
    """An archive whose only member says that it is of ``size`` bytes, and ends."""
    info = tarfile.TarInfo("large")
    info.size = size
    return gzip.compress(info.tobuf() + bytes(1024))


def name_of(size: int) -> bytes:
    """An archive whose only member has a name of ``size`` bytes; names are read at once."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as stream:
        stream.write(info.tobuf())
        for _ in range(size // 1024**2):
            stream.write(b"x" * 1024**2)
    return packed.getvalue()


def chained(count: int) -> bytes:
    """An archive whose only member has ``count`` long names, one after the other."""
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 2
    block = name.tobuf() + b"a\0" + bytes(tarfile.BLOCKSIZE - 2)
    return gzip.compress(block * count + tarfile.TarInfo("a").tobuf() + bytes(1024))


NOISE: Final = archive(member("noise", content=os.urandom(10_000)))
HOSTILE: Final = {
    "a path upwards": (after_a_good_file(member("../evil.py")), "outside its folder"),
    "a path upwards in the middle": (
        after_a_good_file(member("a/../../evil.py")),
        "outside its folder",
    ),
    "a folder upwards": (after_a_good_file(member("..", tarfile.DIRTYPE)), "outside its folder"),
    "an absolute path": (after_a_good_file(member("/tmp/evil.py")), "outside its folder"),
    "a backslash": (after_a_good_file(member("..\\evil.py")), "outside its folder"),
    "a symbolic link": (
        after_a_good_file(member("link", tarfile.SYMTYPE, link="/etc/passwd")),
        "neither a file nor a folder",
    ),
    "a link to a folder": (
        after_a_good_file(member("dataset", tarfile.SYMTYPE, link="..")),
        "neither a file nor a folder",
    ),
    "a hard link": (
        after_a_good_file(member("link", tarfile.LNKTYPE, link="environment.py")),
        "neither a file nor a folder",
    ),
    "a character device": (
        after_a_good_file(member("null", tarfile.CHRTYPE)),
        "neither a file nor a folder",
    ),
    "a block device": (
        after_a_good_file(member("disk", tarfile.BLKTYPE)),
        "neither a file nor a folder",
    ),
    "a pipe": (after_a_good_file(member("pipe", tarfile.FIFOTYPE)), "neither a file nor a folder"),
    "a set-user-id bit": (after_a_good_file(member("tool", mode=0o4755)), "run as someone else"),
    "too many": (archive(*(member(f"{n}") for n in range(5001))), "more than 5,000"),
    "too large": (promising(256 * 1024**2 + 1), "unpacks to more than 268,435,456 bytes"),
    "a name that is a bomb": (name_of(270 * 1024**2), "a header of more than 65,536 bytes"),
    "a thousand names of one file": (chained(1_000), "cannot be unpacked"),
    "a file where a folder must be": (
        archive(member("a"), member("a/b")),
        "cannot be unpacked",
    ),
    "nothing": (b"", "cannot be unpacked"),
    "no archive": (b"hello", "cannot be unpacked"),
    "compressed, and no archive": (gzip.compress(b"x" * 2000), "cannot be unpacked"),
    "half an archive": (NOISE[:5000], "cannot be unpacked"),
    "a damaged archive": (NOISE[:3000] + bytes(500) + NOISE[3500:], "cannot be unpacked"),
}
