"""A config and other arguments as a program gives them; what they cannot be is refused.

A config is a file or a mapping, with changes on top.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from flashrun.api.names import is_namespace
from flashrun.cli.config.compose import ComposedConfig, ConfigFile, compose
from flashrun.cli.config.load_config import STANDARD_INPUT, read_config_file
from flashrun.cli.config.problems import ConfigError, Origin, Problem
from flashrun.cli.output.failure import UsageFailure

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
        UsageFailure: a file cannot be read, or an argument is of another type.
    """
    if isinstance(overlays, str | os.PathLike | Mapping) or not isinstance(overlays, Iterable):
        raise _wrong_type("overlays", "a list of files and dicts", overlays)
    if overrides is not None and not isinstance(overrides, Mapping):
        example = "a dict by dotted key such as {'train.epochs': 5}"
        raise _wrong_type("overrides", example, overrides)
    files = [_file("config", config)]
    files += [_file(f"overlay {number}", item) for number, item in enumerate(overlays, 1)]
    for key, value in (overrides or {}).items():
        given_text("a key of overrides", key)
        table = value
        for part in reversed(key.split(".")):
            table = {part: table}
        files.append(_tables_file("overrides", table))
    return compose(files)


def folders_of(config: GivenConfig) -> list[Path]:
    """Return the folders whose ``.env`` files may hold values of secrets."""
    return [] if isinstance(config, Mapping) else [_path("config", config).resolve().parent]


def given_path(what: str, given: str | os.PathLike[str]) -> Path:
    """Return a path, in which ``~`` is the user's folder; ``what`` is the argument in messages.

    Raises:
        UsageFailure: this cannot be a path.
    """
    if not isinstance(given, str | os.PathLike):
        raise _wrong_type(what, "a path", given)
    try:
        path = Path(given).expanduser()
    except (RuntimeError, TypeError) as error:  # ~somebody, and paths of bytes
        raise UsageFailure(f"{what} {os.fspath(given)!r} is not a path: {error}") from None
    if "\0" in str(path):
        raise UsageFailure(f"{what} {str(path)!r} is not a path: it has a null character")
    return path


def given_text(what: str, given: str) -> str:
    """Return a text; ``what`` is the argument in messages.

    Raises:
        UsageFailure: it is of another type.
    """
    if not isinstance(given, str):
        raise _wrong_type(what, "text", given)
    return given


def given_namespace(given: str) -> str:
    """Return the name of a namespace.

    Raises:
        UsageFailure: no namespace can have this name.
    """
    if not is_namespace(given_text("namespace", given)):
        raise UsageFailure(f"{given!r} is not the name of a namespace")
    return given


def _wrong_type(what: str, right: str, given: object) -> UsageFailure:
    return UsageFailure(f"{what} has to be {right}, and is of type {type(given).__name__}")


def _file(name: str, given: GivenConfig) -> ConfigFile:
    if isinstance(given, Mapping):
        return _tables_file(name, given)
    if not isinstance(given, str | os.PathLike):
        raise _wrong_type(name, "the path of a file or a dict of tables", given)
    return read_config_file(_path(name, given))


def _path(name: str, given: str | os.PathLike[str]) -> Path:
    path = given_path(name, given)
    # For a command this is standard input, which a program keeps for itself.
    return path.absolute() if path == STANDARD_INPUT else path


def _tables_file(name: str, tables: Mapping[str, Any]) -> ConfigFile:
    try:
        return ConfigFile(name, json.dumps(dict(tables), default=_plain).encode())
    except (TypeError, ValueError, RuntimeError) as error:  # of tensors and of recursion, too
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
