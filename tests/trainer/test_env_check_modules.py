"""Python's path in a check: what the trainer image has, and nothing else of this machine."""

import sys
import sysconfig
from pathlib import Path

from flashrun_trainer.env_check_modules import image_path


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(str(folder))
    return folder


def test_only_modules_of_the_image_are_linked_and_the_first_wins(tmp_path: Path):
    first = make(tmp_path / "first", "numpy/__init__.py", "numpy.libs/a.so", "pytest/__init__.py")
    second = make(tmp_path / "second", "numpy/__init__.py", "typing_extensions.py", "x.pth",
                  "numpy-2.0.dist-info/METADATA", "_cffi_backend.cpython-311.so")  # fmt: skip
    links = tmp_path / "links"
    links.mkdir()
    path = image_path(links, [str(first), str(second), str(tmp_path / "missing"), ""])

    assert path == [str(links)]
    assert sorted(entry.name for entry in links.iterdir()) == [
        "_cffi_backend.cpython-311.so", "numpy", "numpy-2.0.dist-info", "numpy.libs",
        "typing_extensions.py",
    ]  # fmt: skip
    assert (links / "numpy" / "__init__.py").read_text() == str(first)


def test_the_standard_library_stays_where_it_is(tmp_path: Path):
    stdlib = sysconfig.get_path("stdlib")
    path = image_path(tmp_path, sys.path)

    assert stdlib in path
    assert path[-1] == str(tmp_path)
    assert not [entry for entry in path if entry.endswith("-packages")]
