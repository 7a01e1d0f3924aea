"""The Python packages that are installed in the trainer image, and beside it."""

import re
import sys
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path


def installed_pins(*folders: Path) -> list[str]:
    """Return the packages of the image, and of further ``folders``, as sorted ``name==version``.

    A package that is installed twice has the version that Python imports, the first on the path:
    a virtual environment may see the packages of its system, of which it replaces some.
    """
    imported: dict[str, str] = {}
    for item in distributions(path=[*sys.path, *map(str, folders)]):
        head = HeaderParser().parsestr(_metadata_of(item).partition("\n\n")[0])
        if name := head["Name"]:
            pin = f"{name}=={head['Version']}"
            imported.setdefault(re.sub(r"[-_.]+", "-", name).lower(), pin)
    return sorted(imported.values())


def _metadata_of(item: Distribution) -> str:
    """Return the file that ``item.metadata`` parses whole, with a long description, at each use."""
    return item.read_text("METADATA") or item.read_text("PKG-INFO") or item.read_text("") or ""
