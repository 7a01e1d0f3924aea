"""From files and options to one checked config: the only place that reads a run's TOML."""

import sys
from collections.abc import Sequence
from pathlib import Path

from flashrun.api.public import PublicPlatform
from flashrun.cli.config import compose
from flashrun.cli.config.compose import Composed, ConfigError, ConfigFile, Origin, Problem
from flashrun.cli.output.failure import UsageFailure
from flashrun.plan.resolve import ConfigIssue, check_config

STANDARD_INPUT = Path("-")


def read(config: Path, overlays: Sequence[Path] | None, sets: Sequence[str] | None) -> Composed:
    """Compose the files and the values of ``--set``; raises ``ConfigError`` with all problems."""
    if (config, *(overlays or ())).count(STANDARD_INPUT) > 1:
        raise UsageFailure("standard input can be read once: give - for one file only")
    return composed([file(path) for path in (config, *(overlays or ()))], sets)


def composed(files: Sequence[ConfigFile], sets: Sequence[str] | None) -> Composed:
    """Compose what was read; raises ``ConfigError`` with all problems."""
    return compose.compose(files, sets or ())


def checked(composed: Composed, platform: PublicPlatform) -> tuple[str, ...]:
    """Check against what the platform offers and return the warnings, one sentence each.

    Raises:
        ConfigError: the platform would refuse the config.
    """
    findings = check_config(
        composed.config, platform.catalog(), pip_url_hosts=platform.pip_url_hosts
    )
    if findings.problems:
        raise ConfigError(
            Problem(_origin(composed, found), str(found)) for found in findings.problems
        )
    return (*composed.notes, *map(str, findings.warnings))


def _origin(composed: Composed, finding: ConfigIssue) -> Origin:
    """Return where a key was given; a default is the model's doing, as limits are the model's."""
    found = composed.origin(*finding.key.split(".")) or composed.origin("model")
    return found or Origin("config")


def file(path: Path) -> ConfigFile:
    """Read a config file; ``-`` is standard input."""
    try:
        if path == STANDARD_INPUT:
            return ConfigFile("<stdin>", sys.stdin.buffer.read(compose.SIZE_LIMIT + 1))
        with path.open("rb") as file:
            return ConfigFile(str(path), file.read(compose.SIZE_LIMIT + 1))
    except OSError as error:
        raise UsageFailure(f"cannot read {path}: {error.strerror}") from None
