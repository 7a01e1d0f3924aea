"""Files that are read in two places, and exist once where the file system allows it."""

import contextlib
import os
import shutil
from pathlib import Path


def link_or_copy(path: str | Path, target: str | Path) -> None:
    """Hard-link ``path`` to ``target``, or copy it where the file system has no hard links."""
    with contextlib.suppress(OSError):
        os.link(path, target)
        return
    shutil.copyfile(path, target)
