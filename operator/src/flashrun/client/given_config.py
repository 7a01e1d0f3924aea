"""A config as a program gives it: a file or a mapping, with changes on top."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from flashrun.cli.config.compose import ComposedConfig, ConfigFile, compose
from flashrun.cli.config.load_config import STANDARD_INPUT, read_config_file
from flashrun.cli.config.problems import ConfigError, Origin, Problem

GivenConfig: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""The path of a TOML or JSON file, or the tables of a config."""


def compose_given(
    config: GivenConfig,
    overlays: Iterable[GivenConfig] = (),
    overrides: Mapping[str, Any] | None = None,
) -> ComposedConfig:
    """Merge each overlay, then each value of ``overrides`` by its dotted key, and validate it.

    Raises:
        ConfigError: with every problem of the config.
        UsageFailure: a file cannot be read.
    """
    files = [_file("config", config)]
    files += [_file(f"overlay {number}", item) for number, item in enumerate(overlays, 1)]
    for key, value in (overrides or {}).items():
        table = value
        for part in reversed(key.split(".")):
            table = {part: table}
        files.append(_tables_file("overrides", table))
    return compose(files)


def folders_of(config: GivenConfig) -> list[Path]:
    """Return the folders whose ``.env`` files may hold values of secrets."""
    return [] if isinstance(config, Mapping) else [_path(config).resolve().parent]


def _file(name: str, given: GivenConfig) -> ConfigFile:
    if isinstance(given, Mapping):
        return _tables_file(name, given)
    return read_config_file(_path(given))


def _path(given: str | os.PathLike[str]) -> Path:
    path = Path(given).expanduser()
    # For a command this is standard input, which a program keeps for itself.
    return path.absolute() if path == STANDARD_INPUT else path


def _tables_file(name: str, tables: Mapping[str, Any]) -> ConfigFile:
    try:
        return ConfigFile(name, json.dumps(dict(tables), default=_plain).encode())
    except (TypeError, ValueError, RecursionError) as error:
        what = "its tables nest too deep" if isinstance(error, RecursionError) else str(error)
        sentence = f"this is not a config: {what}; give text, numbers, lists and tables"
        raise ConfigError([Problem(Origin(name), sentence)]) from None


def _plain(value: Any) -> Any:
    """Return what JSON can hold: other mappings as a dict, and numbers of numpy as Python's."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(item := getattr(value, "item", None)):
        return item()
    raise TypeError(f"a {type(value).__name__} cannot be a value")
