"""A resolved config and where each of its values came from: as TOML, or as data."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from flashrun.api.config import Algorithm
from flashrun.cli.config.compose import ComposedConfig


class Setting(NamedTuple):
    """One key of a resolved config: its value and where that came from."""

    table: str
    key: str
    value: Any
    origin: str
    used: bool = True


def list_settings(composed: ComposedConfig) -> list[Setting]:
    """Return every key of a config with its value, given or default, in the reference's order."""
    config = composed.config
    settings = [
        _setting(composed, "", "model", config.model),
        _setting(composed, "", "algorithm", str(config.algorithm)),
        _setting(composed, "", "thinking", config.thinking),
        _setting(composed, "environment", "id", config.environment.id),
        *(
            _setting(composed, "environment", key, value)
            for key in ("params", "pip", "secrets")
            if (value := getattr(config.environment, key))
        ),
        *_train_settings(composed),
    ]
    for table in ("worker_env", "wandb"):
        given = getattr(config, table)
        pairs = given if isinstance(given, dict) else given.model_dump(exclude_none=True)
        settings += [_setting(composed, table, key, value) for key, value in pairs.items()]
    return settings


def _train_settings(composed: ComposedConfig) -> Iterable[Setting]:
    config = composed.config
    unused = config.keys_of_the_other_algorithm()
    for key in type(config.train).model_fields:
        given = getattr(config.train, key)
        if key in unused:
            yield _setting(composed, "train", key, given)._replace(used=False)
        elif key == "init_from_adapter":
            if given is not None:
                yield _setting(composed, "train", key, given)
        elif given is None and config.train.init_from_adapter and key.startswith("lora_"):
            yield Setting("train", key, None, "comes from the adapter", used=False)
        elif (value := given if given is not None else _default(composed, key)) is not None:
            yield _setting(composed, "train", key, value, default="recipe")


def _default(composed: ComposedConfig, key: str) -> Any:
    """Return the recipe's value of a key; None where the algorithm has no such key."""
    value = getattr(composed.train, key)
    sft_only = key in ("max_steps",) and composed.config.algorithm is not Algorithm.SFT
    return None if value == () or sft_only else value


def _setting(
    composed: ComposedConfig, table: str, key: str, value: Any, *, default: str = "default"
) -> Setting:
    origin = composed.origin(*((table, key) if table else (key,)))
    return Setting(table, key, value, str(origin) if origin else default)


def to_toml(settings: Sequence[Setting]) -> str:
    """Return settings as TOML, each with a comment that says where its value came from.

    The text is a valid config again: keys without effect are comments.
    """
    lines: list[tuple[str, str]] = []
    table = ""
    for setting in settings:
        if setting.table != table:
            table = setting.table
            lines += [("", ""), (f"[{table}]", "")]
        lines.append(_toml_line(setting))
    width = min(56, max((len(code) for code, comment in lines if comment), default=0))
    return "".join(
        f"{code.ljust(width)}  # {comment}\n" if comment else f"{code}\n" for code, comment in lines
    )


def _toml_line(setting: Setting) -> tuple[str, str]:
    if setting.value is None:
        return f"# {setting.key}", setting.origin
    code = f"{_toml_key(setting.key)} = {toml_value(setting.value)}"
    return (code, setting.origin) if setting.used else (f"# {code}", f"{setting.origin}, no effect")


def to_data(settings: Sequence[Setting]) -> dict[str, Any]:
    """Return settings for programs: the nested tables, and where each value came from."""
    return {"state": "dry_run", "spec": _tables(settings), "sources": _origins(settings)}


def _tables(settings: Sequence[Setting]) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for setting in settings:
        if setting.used:
            table = tables.setdefault(setting.table, {}) if setting.table else tables
            table[setting.key] = _plain(setting.value)
    return tables


def _origins(settings: Sequence[Setting]) -> dict[str, str]:
    return {
        f"{setting.table}.{setting.key}".removeprefix("."): setting.origin
        for setting in settings
        if setting.used
    }


def toml_value(value: Any) -> str:
    """Return ``value`` as one line of TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            pairs = (f"{_toml_key(key)} = {toml_value(item)}" for key, item in value.items())
            return f"{{{', '.join(pairs)}}}"
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case _:
            return repr(value)


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else toml_value(key)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
