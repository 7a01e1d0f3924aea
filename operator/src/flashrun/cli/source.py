"""From files and options to one checked config: the only place that reads a run's TOML."""

import sys
from collections.abc import Sequence
from pathlib import Path

from flashrun.cli.failure import UsageFailure
from flashrun.plan.resolve import Finding, check
from flashrun.spec import compose
from flashrun.spec.catalog import Catalog
from flashrun.spec.compose import Composed, ConfigError, ConfigFile, Origin, Problem

STANDARD_INPUT = Path("-")


def read(config: Path, overlays: Sequence[Path] | None, sets: Sequence[str] | None) -> Composed:
    """Compose the files and the values of ``--set``; raises ``ConfigError`` with all problems."""
    files = [_read(path) for path in (config, *(overlays or ()))]
    return compose.compose(files, sets or ())


def checked(composed: Composed, catalog: Catalog) -> tuple[str, ...]:
    """Check against the catalog and return the warnings, one sentence each.

    Raises:
        ConfigError: the catalog refuses the config.
    """
    findings = check(composed.config, catalog)
    if findings.problems:
        raise ConfigError(
            Problem(_origin(composed, found), str(found)) for found in findings.problems
        )
    return (*composed.notes, *map(str, findings.warnings))


def _origin(composed: Composed, finding: Finding) -> Origin:
    """Return where a key was given; a default is the model's doing, as limits are the model's."""
    found = composed.origin(*finding.key.split(".")) or composed.origin("model")
    return found or Origin("config")


def _read(path: Path) -> ConfigFile:
    try:
        if path == STANDARD_INPUT:
            return ConfigFile("<stdin>", sys.stdin.buffer.read(compose.SIZE_LIMIT + 1))
        with path.open("rb") as file:
            return ConfigFile(str(path), file.read(compose.SIZE_LIMIT + 1))
    except OSError as error:
        raise UsageFailure(f"cannot read {path}: {error.strerror}") from None
