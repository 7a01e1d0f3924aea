"""Values of secrets on this machine: from the shell's environment, then from ``.env`` files.

The first non-empty value counts. Lines are ``NAME=VALUE``; quotes around a value are removed, ``#``
begins a comment line, and nothing is expanded or executed.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from flashrun.cli.output.failure import UsageFailure

FILES: Final = (".env", ".env.local")


def find_values(names: Iterable[str], folders: Iterable[Path] = ()) -> dict[str, str]:
    """Return the value of each name that has one here.

    The places are the shell's environment, then the files in the current folder, then those in
    ``folders``.
    """
    return lookup(names, read_sources(os.environ, (Path.cwd(), *folders)))


def read_sources(
    environment: Mapping[str, str], folders: Iterable[Path]
) -> list[Mapping[str, str]]:
    """Return the places to look in, in order: ``environment``, then the files of each folder."""
    paths = dict.fromkeys(folder.resolve() / name for folder in folders for name in FILES)
    return [environment, *(parse(_read(path)) for path in paths if path.is_file())]


def lookup(names: Iterable[str], sources: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the first non-empty value of each name that has one."""
    places = list(sources)
    values = {
        name: next((place[name] for place in places if place.get(name, "").strip()), None)
        for name in names
    }
    return {name: value for name, value in values.items() if value is not None}


def parse(text: str) -> dict[str, str]:
    """Read the lines ``NAME=VALUE`` of a ``.env`` file; of a repeated name the last counts."""
    values: dict[str, str] = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        name = name.strip().removeprefix("export ").strip()
        if equals and name and not name.startswith("#"):
            values[name] = _unquote(value.strip())
    return values


def _unquote(value: str) -> str:
    quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageFailure(f"cannot read {path}: {reason}") from None
