"""Which packages are environments of the ``verifiers`` library, and what they ask for.

Such an environment runs in a process of its own, with packages of its own. What it is must be known
before any of its code runs: ``flash env push`` checks the folder, and the init container installs
its packages into another place.
"""

import ast
import re
import tomllib
from collections.abc import Iterable
from typing import Final, NamedTuple

ENTRY_FILE: Final = "environment.py"
"""Module with ``load_environment``."""
PROJECT_FILE: Final = "pyproject.toml"
VERIFIERS: Final = "verifiers"
"""Name of the library's package and of its module."""
VERSION: Final = "0.3.1"
"""The last version whose environments have ``load_environment`` and rubrics."""
OWN_SDK: Final = "freesolo"

_NAME: Final = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


class VerifiersEntry(NamedTuple):
    """Where an environment's ``load_environment`` is, and the packages that its project lists."""

    module: str
    requirements: tuple[str, ...] = ()


def find_entry(environment_file: str | None, project_file: str | None) -> VerifiersEntry | None:
    """Return the entry of a ``verifiers`` environment; None when it is not one.

    The arguments are the texts of ``environment.py`` and ``pyproject.toml``, None for a file that
    does not exist. ``environment.py`` comes first. Without it, the module has the project's name,
    as ``verifiers`` itself finds it.
    """
    project = _read_project(project_file or "")
    if environment_file is not None:
        modules = _imported_modules(environment_file)
        if VERIFIERS not in modules or OWN_SDK in modules:
            return None
        return VerifiersEntry(ENTRY_FILE.removesuffix(".py"), project[1])
    name, requirements = project
    if not name or not any(requirement_name(text) == VERIFIERS for text in requirements):
        return None
    return VerifiersEntry(name.replace("-", "_"), requirements)


def requirement_name(requirement: str) -> str:
    """Return the normalised name of the package that a requirement is for; "" for other text."""
    match = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""


def excluding(requirements: Iterable[str]) -> str:
    """Return the first requirement that no version but another than ``VERSION`` meets, or ""."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in requirements:
        if requirement_name(text) == VERIFIERS:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue  # pip refuses it, and says why
            if requirement.url or not requirement.specifier.contains(VERSION):
                return text
    return ""


def _read_project(text: str) -> tuple[str, tuple[str, ...]]:
    """Return name and dependencies of a project; empty for what it does not have."""
    try:
        project = tomllib.loads(text).get("project")
    except tomllib.TOMLDecodeError:
        return "", ()
    if not isinstance(project, dict):
        return "", ()
    name, requirements = project.get("name"), project.get("dependencies")
    return (
        name if isinstance(name, str) else "",
        tuple(filter(_is_text, requirements)) if isinstance(requirements, list) else (),
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _imported_modules(source: str) -> set[str]:
    """Return the top-level modules that Python code imports; none if it cannot be parsed."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return set()
    imported = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                imported |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                imported.add(module.partition(".")[0])
            case _:
                pass
    return imported
