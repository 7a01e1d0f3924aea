"""The Python packages that are installed in the trainer image, and beside it."""

import sys
from importlib.metadata import distributions
from pathlib import Path


def installed_pins(*folders: Path) -> list[str]:
    """Return the packages of the image, and of further ``folders``, as sorted ``name==version``."""
    path = [*sys.path, *map(str, folders)]
    packages = {item.name.lower(): item for item in distributions(path=path) if item.name}
    return sorted(f"{item.name}=={item.version}" for item in packages.values())
