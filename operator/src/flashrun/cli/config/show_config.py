"""A composed config with every value filled in, and where each came from: as TOML, or as data."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from flashrun.api.config import Algorithm
from flashrun.api.records import ResolvedTrain
from flashrun.cli.config.compose import Composed
from flashrun.plan import resolve

LEFT_TO_THE_PLATFORM: Final = (
    "\n# chosen by the platform: name, pool, GPUs, image, version of the environment and the model"
)


class Setting(NamedTuple):
    """One key of a resolved config: its value and where that came from."""

    table: str
    key: str
    value: Any
    origin: str
    used: bool = True


def settings(composed: Composed) -> list[Setting]:
    """Return every key of a run with its value, given or filled in, in the reference's order."""
    config = composed.config
    found = [
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
        found += [_setting(composed, table, key, value) for key, value in pairs.items()]
    return found


def _train_settings(composed: Composed) -> Iterable[Setting]:
    config = composed.config
    resolved = resolve.resolve_train(config)
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
        elif (
            value := given if given is not None else _filled(resolved, key, config.algorithm)
        ) is not None:
            yield _setting(composed, "train", key, value, default="recipe")


def _filled(resolved: ResolvedTrain, key: str, algorithm: Algorithm) -> Any:
    """Return the recipe's value; None where the algorithm has no such key."""
    value = getattr(resolved, key)
    sft_only = key in ("max_steps",) and algorithm is not Algorithm.SFT
    return None if value == () or sft_only else value


def _setting(
    composed: Composed, table: str, key: str, value: Any, *, default: str = "default"
) -> Setting:
    origin = composed.origin(*((table, key) if table else (key,)))
    return Setting(table, key, value, str(origin) if origin else default)


def resolved_toml(found: Sequence[Setting]) -> str:
    """Return a resolved config as TOML that says of each value where it came from.

    What it returns can be submitted again: keys without effect are comments.
    """
    lines: list[tuple[str, str]] = []
    table = ""
    for setting in found:
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


def answer(found: Sequence[Setting]) -> dict[str, Any]:
    """Return what a dry run says to programs."""
    return {"state": "dry_run", "spec": resolved_tables(found), "sources": origins(found)}


def resolved_tables(found: Sequence[Setting]) -> dict[str, Any]:
    """Return a resolved config as nested tables, for programs."""
    tables: dict[str, Any] = {}
    for setting in found:
        if setting.used:
            table = tables.setdefault(setting.table, {}) if setting.table else tables
            table[setting.key] = _plain(setting.value)
    return tables


def origins(found: Sequence[Setting]) -> dict[str, str]:
    """Return where each key's value came from."""
    return {
        f"{setting.table}.{setting.key}".removeprefix("."): setting.origin
        for setting in found
        if setting.used
    }


def toml_value(value: Any) -> str:
    """Return ``value`` as TOML writes it on one line."""
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
