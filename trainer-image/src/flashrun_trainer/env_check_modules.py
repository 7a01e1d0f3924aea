"""The modules that an environment may import in ``flash env test``: those of the trainer image.

The machine of an author has more packages than the image. A folder of links to the image's own
takes the place of all others on Python's path, so that a package that is missing from the pip list
is missing here, too.
"""

import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from flashrun.api.trainer_modules import IMAGE_MODULES

_SUFFIXES: Final = frozenset({".py", ".so", ".pyd"})
_BESIDE: Final = (".libs", ".dist-info")
"""Folders that belong to packages and are not imported."""


def image_path(links: Path, path: Iterable[str]) -> list[str]:
    """Return Python's path without packages that the trainer image lacks.

    ``links`` is an empty folder, which gets a link to each module of the image that is somewhere on
    ``path``.
    """
    folders = [Path(entry) for entry in path if entry]
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    kept = [folder for folder in folders if _is_standard(folder, standard)]
    for folder in folders:
        if folder not in kept:
            for entry in _image_entries(folder):
                with suppress(FileExistsError):  # the first on the path is imported
                    (links / entry.name).symlink_to(entry.resolve())
    return [*map(str, kept), str(links)]


def _is_standard(folder: Path, standard: set[str]) -> bool:
    """Return whether a folder or archive on the path has Python's standard library."""
    is_part = str(folder) in standard or str(folder.parent) in standard
    return folder.suffix == ".zip" or (
        is_part and folder.name not in ("site-packages", "dist-packages")
    )


def _image_entries(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        importable = entry.is_dir() or entry.suffix in _SUFFIXES
        if entry.suffix in _BESIDE or (importable and entry.name.split(".")[0] in IMAGE_MODULES):
            yield entry
