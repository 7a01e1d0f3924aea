"""Load a run's config from files and ``--set``, and check it against a platform."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flashrun.api.public import PublicPlatform
from flashrun.cli.config import compose
from flashrun.cli.config.compose import ComposedConfig, ConfigFile
from flashrun.cli.config.problems import ConfigError, Problem
from flashrun.cli.output.failure import UsageFailure
from flashrun.plan import resolve

STANDARD_INPUT: Final = Path("-")


def read_config(
    config: Path, overlays: Sequence[Path] | None, sets: Sequence[str] | None
) -> ComposedConfig:
    """Read the files, compose them with the values of ``--set`` and fill in every default.

    Raises:
        ConfigError: with every problem of the config.
        UsageFailure: a file cannot be read.
    """
    paths = (config, *(overlays or ()))
    if paths.count(STANDARD_INPUT) > 1:
        raise UsageFailure("standard input can be read only once", "give - for one file only")
    return compose.compose([read_config_file(path) for path in paths], sets or ())


def read_config_file(path: Path) -> ConfigFile:
    """Read a config file; ``-`` is standard input."""
    try:
        if path == STANDARD_INPUT:
            return ConfigFile("<stdin>", sys.stdin.buffer.read(compose.SIZE_LIMIT + 1))
        with path.open("rb") as file:
            return ConfigFile(str(path), file.read(compose.SIZE_LIMIT + 1))
    except OSError as error:
        raise UsageFailure(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # a null character, which the file of a sweep can bring
        raise UsageFailure(f"cannot read {str(path)!r}: {error}") from None


def check_with_platform(composed: ComposedConfig, platform: PublicPlatform) -> tuple[str, ...]:
    """Check a config against what the platform offers; return notes, one sentence each.

    Raises:
        ConfigError: the platform would refuse the config.
    """
    result = resolve.check_config(
        composed.config,
        composed.train,
        platform.catalog(),
        pip_url_hosts=platform.pip_url_hosts,
    )
    if result.problems:
        raise ConfigError(
            Problem(composed.origin_of_key(problem.key), str(problem))
            for problem in result.problems
        )
    return (*composed.notes, *map(str, result.warnings))
