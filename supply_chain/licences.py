"""Check the licences in SBOMs by the table ``licences.toml``.

``python -m supply_chain.licences FILE …`` reads lists in CycloneDX, as the images contain them, and
fails when a package has a licence that the table does not accept, or none that is known.
"""

import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Self

from license_expression import ExpressionError, get_spdx_licensing

TABLE: Final = Path(__file__).with_name("licences.toml")
_LICENSING: Final = get_spdx_licensing()


@dataclass(frozen=True)
class Accepted:
    """Which licences packages may have."""

    licences: frozenset[str]
    packages: Mapping[str, str]
    """Name of packages, or a pattern → their licence, whatever their metadata say."""

    @classmethod
    def load(cls, path: Path = TABLE) -> Self:
        """Read the table."""
        table = tomllib.loads(path.read_text())
        return cls(frozenset(table["accepted"]), table["packages"])

    def problem(self, component: Mapping[str, Any]) -> str:
        """Return one sentence about a package that may not be used, or an empty string."""
        name = f"{component['name']} {component.get('version', '')}".strip()
        given = [*self._known(component["name"])] or _licences(component)
        if not given or not all(given):
            return f"{name} names no licence: look it up, and add it to [packages]"
        refused = [licence for licence in given if not self._accepts(licence)]
        return f"{name} has the licence {', '.join(refused)}" if refused else ""

    def _known(self, name: str) -> Iterator[str]:
        for pattern, licence in self.packages.items():
            if fnmatchcase(name.lower().replace("_", "-"), pattern):
                yield licence

    def _accepts(self, licence: str) -> bool:
        """Return whether a licence, or what an expression leaves to choose, is in the table."""
        if licence in self.licences:
            return True
        try:
            parsed = _LICENSING.parse(licence)
        except ExpressionError:
            return False
        return parsed is not None and self._holds(parsed)

    def _holds(self, node: Any) -> bool:
        parts = [self._holds(part) for part in node.args]
        if isinstance(node, _LICENSING.OR):
            return any(parts)
        if isinstance(node, _LICENSING.AND):
            return all(parts)
        return str(node) in self.licences


def _licences(component: Mapping[str, Any]) -> list[str]:
    """Return the licences that a package names; all of them hold."""
    found = []
    for choice in component.get("licenses", ()):
        licence = choice.get("license", {})
        found.append(choice.get("expression") or licence.get("id") or licence.get("name") or "")
    return found


def check(sboms: Iterable[Path], accepted: Accepted) -> tuple[int, list[str]]:
    """Return how many packages the lists have, and a sentence about each that is refused.

    Raises:
        OSError, ValueError: a file is not a list of packages.
    """
    components = {
        (component["name"], component.get("version", "")): component
        for path in sboms
        for component in _components(path)
    }
    problems = map(accepted.problem, components.values())
    return len(components), sorted(filter(None, problems))


def _components(path: Path) -> list[dict[str, Any]]:
    """Return the packages of a list; one without any would pass for a list that was checked."""
    try:
        listed: list[dict[str, Any]] = json.loads(path.read_bytes())["components"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a list of packages in CycloneDX") from None
    if not listed:
        raise ValueError(f"{path} lists no package")
    return listed


def main(words: list[str]) -> int:
    """Check the files in ``words``; return the exit code."""
    if not words:
        print("stopped: name the lists to check, as in sbom/operator.cdx.json")
        return 2
    try:
        count, problems = check(map(Path, words), Accepted.load())
    except OSError as error:
        print(f"stopped: {error.filename}: {error.strerror}")
        return 2
    except ValueError as error:
        print(f"stopped: {error}")
        return 2
    for problem in problems:
        print(problem)
    if problems:
        table = TABLE.relative_to(Path(__file__).parents[1])
        print(f"stopped: {len(problems)} of {count} packages are not in the table {table}")
        return 1
    print(f"licences: {count} {'package' if count == 1 else 'packages'}, all accepted")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
