"""Problems of a config, each with the place where it was given.

The module imports no models, so that ``main`` can catch a ``ConfigError`` without importing them.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Origin(NamedTuple):
    """Where a value was given: a line of a file, or a ``--set``."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        """Return ``source:line``, the form that editors recognise as a link."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


class Problem(NamedTuple):
    """One thing that is wrong with a config, and where it was given."""

    origin: Origin
    sentence: str

    def __str__(self) -> str:
        """Return one line: place and sentence, without naming a ``--set`` key twice."""
        key = self.origin.source.removeprefix("--set ")
        if key != self.origin.source and self.sentence.startswith((f"{key} ", f"{key}:")):
            return f"--set {self.sentence}"
        return f"{self.origin}: {self.sentence}"


class ConfigError(Exception):
    """A config cannot be used; ``problems`` lists everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
