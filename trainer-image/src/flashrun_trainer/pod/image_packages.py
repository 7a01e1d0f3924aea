"""The Python packages that are installed in the trainer image, and beside it."""

import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

_FIELD: Final = re.compile(r"^(Name|Version):[ \t]*(\S+)", re.MULTILINE | re.IGNORECASE)


def installed_pins(*folders: Path) -> list[str]:
    """Return the packages of the image, and of further ``folders``, as sorted ``name==version``.

    A package that is installed twice has the version that Python imports, the first on the path:
    a virtual environment may see the packages of its system, of which it replaces some.
    """
    imported: dict[str, str] = {}
    for item in distributions(path=[*sys.path, *map(str, folders)]):
        name, version = _name_and_version(item)
        if name:
            imported.setdefault(re.sub(r"[-_.]+", "-", name).lower(), f"{name}=={version}")
    return sorted(imported.values())


def _name_and_version(item: Distribution) -> tuple[str | None, str | None]:
    """Return what ``item.metadata`` says, which parses all of a long file at each use."""
    text = item.read_text("METADATA") or item.read_text("PKG-INFO") or item.read_text("") or ""
    head = text.partition("\n\n")[0]
    fields = {name.lower(): value for name, value in _FIELD.findall(head)}
    return fields.get("name"), fields.get("version")
