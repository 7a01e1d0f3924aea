"""The Python packages that are installed in the trainer image, and beside it."""

import re
import sys
from importlib.metadata import distributions
from pathlib import Path


def installed_pins(*folders: Path) -> list[str]:
    """Return the packages of the image, and of further ``folders``, as sorted ``name==version``.

    A package that is installed twice has the version that Python imports, the first on the path:
    a virtual environment may see the packages of its system, of which it replaces some.
    """
    imported: dict[str, str] = {}
    for item in distributions(path=[*sys.path, *map(str, folders)]):
        metadata = item.metadata  # each access parses the file
        if name := metadata["Name"]:
            pin = f"{name}=={metadata['Version']}"
            imported.setdefault(re.sub(r"[-_.]+", "-", name).lower(), pin)
    return sorted(imported.values())
