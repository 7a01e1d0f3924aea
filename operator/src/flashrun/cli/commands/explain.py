"""``flash explain``: what a key of the config means, derived from the models that check it."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Final, NamedTuple

import typer

from flashrun.api.config import UNUSED_KEYS, Algorithm, EnvironmentConfig, EvalConfig, RunConfig
from flashrun.api.generate.config_schema import toml_schema
from flashrun.cli.config.compose import PLATFORM_KEYS
from flashrun.cli.config.error_sentences import OTHER_NAMES
from flashrun.cli.config.toml_text import toml_value
from flashrun.cli.options import Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table
from flashrun.plan.resolve import resolve_eval, resolve_train

_BOUNDS: Final = {
    "minimum": "at least {:,}",
    "exclusiveMinimum": "above {:,}",
    "maximum": "at most {:,}",
    "minLength": "at least {:,} characters",
    "maxLength": "at most {:,} characters",
    "maxItems": "at most {:,} entries",
    "maxProperties": "at most {:,} entries",
}
"""Text for the bounds in a JSON Schema."""


_EXTENSIONS: Final = frozenset({"eval", "budget"})
"""Tables that only FlashRun has."""
_EXTENSION: Final = " (An extension of the reference.)"
"""What follows the meaning of a key that only FlashRun has."""


class ConfigKey(NamedTuple):
    """One key of a config, as the models and the recipes define it."""

    name: str
    """Full name, as ``--set`` takes it."""
    meaning: str
    type: str
    bounds: str
    required: bool
    used_by: tuple[Algorithm, ...]
    default: dict[Algorithm, Any]
    """The value when left out; an algorithm without a default value is not in it."""
    thinking_default: dict[Algorithm, Any]
    """The same for runs with ``thinking = true``."""
    example: Any


def complete_key(text: str) -> list[str]:
    """Return the keys that begin with ``text``, for completion in a shell."""
    return [key.name for key in list_keys() if key.name.startswith(text)]


def explain(
    key: Annotated[
        str | None,
        typer.Argument(
            help="Key, such as train.steps or steps; by default all keys.",
            metavar="KEY",
            autocompletion=complete_key,
        ),
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Explain a key of the config.

    Prints its meaning, type, bounds and default. Without KEY all keys are listed; the name of a
    table lists the keys in it.

    Example: flash explain train.max_length
    """
    keys = list(list_keys()) if key is None else find_keys(key)
    match output:
        case OutputFormat.JSON | OutputFormat.YAML:
            data = [_data(item) for item in keys]
            terminal.write_data(data if len(data) != 1 else data[0], output)
        case OutputFormat.NAME:
            for item in keys:
                terminal.write(item.name)
        case OutputFormat.TABLE if len(keys) == 1:
            for label, text in describe(keys[0]):
                terminal.write(f"{label + ':':<13}{text}")
        case OutputFormat.TABLE:
            terminal.write_table(
                Table(
                    ("KEY", "TYPE", "USED BY", "LEFT OUT", "MEANING"),
                    tuple(tuple(map(Cell, _row(item))) for item in keys),
                )
            )


def find_keys(text: str) -> list[ConfigKey]:
    """Return the key that ``text`` names, or the keys of the table that it names.

    Raises:
        UsageFailure: there is no such key; the hint has the most similar one.
    """
    name = text.strip().strip("[]").replace("-", "_").lower()
    known = list(list_keys())
    our_name = OTHER_NAMES.get(name.rpartition(".")[2])
    for candidates in (
        [key for key in known if key.name == name],
        [key for key in known if key.name.partition(".")[0] == name],
        [key for key in known if key.name.rpartition(".")[2] == name],
        [key for key in known if key.name == our_name],
    ):
        if candidates:
            return candidates
    if tuple(name.split(".")) in PLATFORM_KEYS:
        raise UsageFailure(f"{name} cannot be set: the platform chooses it", "leave it out")
    raise UsageFailure(f"there is no key {text!r}", _suggestion(name, [key.name for key in known]))


def _suggestion(name: str, known: Iterable[str]) -> str:
    full_names = {form: key for key in known for form in (key.rpartition(".")[2], key)}
    near = get_close_matches(name, full_names, n=1)
    return f"did you mean {full_names[near[0]]}?" if near else "flash explain lists all keys"


def list_keys() -> Iterator[ConfigKey]:
    """Yield every key of a config, in the order of the reference."""
    schema = toml_schema()
    recipes = {thinking: _recipes(thinking=thinking) for thinking in (False, True)}
    for name, declared in schema["properties"].items():
        field = {**schema["$defs"].get(declared.get("$ref", "").rpartition("/")[2], {}), **declared}
        if "properties" not in field:
            yield _key(name, field, name in schema["required"], recipes)
        for inner, inner_field in field.get("properties", {}).items():
            required = inner in field.get("required", ())
            yield _key(f"{name}.{inner}", inner_field, required, recipes)


def _recipes(*, thinking: bool) -> dict[Algorithm, dict[str, Any]]:
    """Return every default of ``train`` and ``eval``, by algorithm."""
    environment = EnvironmentConfig(id="any/environment")
    configs = (
        RunConfig(model="any", algorithm=algorithm, thinking=thinking, environment=environment)
        for algorithm in Algorithm
    )
    return {config.algorithm: _defaults(config) for config in configs}


def _defaults(config: RunConfig) -> dict[str, Any]:
    """Return the values of the keys of ``train`` and ``eval``, by their full names."""
    train = resolve_train(config)
    evaluation = resolve_eval(config, train)
    assert evaluation is not None  # a config that says nothing about it is evaluated
    tables = {
        "train": train.model_dump(mode="json"),
        "eval": evaluation.model_dump(mode="json", include={*EvalConfig.model_fields} - {"split"}),
    }
    return {f"{table}.{key}": item for table in tables for key, item in tables[table].items()}


def _key(
    name: str,
    field: dict[str, Any],
    required: bool,
    recipes: dict[bool, dict[Algorithm, dict[str, Any]]],
) -> ConfigKey:
    table, _, key = name.rpartition(".")
    used_by = tuple(
        algorithm
        for algorithm in Algorithm
        if table != "train" or key not in UNUSED_KEYS[algorithm]
    )
    options = field.get("anyOf", [field])
    default, thinking_default = (
        {
            algorithm: value
            for algorithm in used_by
            for value in (
                recipes[thinking][algorithm].get(name),
                field.get("default"),
            )
            if value is not None
        }
        for thinking in (False, True)
    )
    return ConfigKey(
        name=name,
        meaning=_meaning(field["description"]) + _EXTENSION * (table in _EXTENSIONS),
        type=" or ".join(_type(option) for option in options),
        bounds=_bounds(options[-1]),
        required=required,
        used_by=used_by,
        default=default,
        thinking_default=thinking_default,
        example=field.get("examples", [None])[0],
    )


def _meaning(description: str) -> str:
    """Return a description without the algorithm that it begins with, as ``used_by`` has it."""
    algorithm, colon, rest = description.partition(": ")
    return rest[0].upper() + rest[1:] if colon and algorithm in ("SFT", "GRPO") else description


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(field["enum"])
    if field["type"] == "array":
        return "list of strings"
    name: str = field["type"]
    return {"boolean": "true or false", "object": "table"}.get(name, name)


def _bounds(field: dict[str, Any]) -> str:
    """Return the bounds of a value, such as "at least 1, at most 100"."""
    bounds = [
        text.format(field[name])
        for name, text in _BOUNDS.items()
        if name in field and not (name == "minLength" and field[name] == 1)
    ]
    return ", ".join(bounds)


def when_left_out(key: ConfigKey) -> str:
    """Return the default of a key as text; empty when it has none."""
    if key.required:
        return "required"
    both = [
        (value, key.thinking_default[algorithm], algorithm)
        for algorithm, value in key.default.items()
    ]
    texts = {algorithm: _with_thinking(plain, thinking) for plain, thinking, algorithm in both}
    if len(texts) == len(key.used_by) and len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{text} for {algorithm}" for algorithm, text in texts.items())


def _with_thinking(plain: Any, thinking: Any) -> str:
    text = toml_value(plain)
    return text if thinking == plain else f"{text} ({toml_value(thinking)} with thinking)"


def describe(key: ConfigKey) -> Iterator[tuple[str, str]]:
    """Yield pairs of a label and a text about a key."""
    yield "Key", key.name
    yield "Meaning", key.meaning
    yield "Type", f"{key.type}; {key.bounds}" if key.bounds else key.type
    yield "Used by", " and ".join(key.used_by)
    if left_out := when_left_out(key):
        yield "Left out", left_out
    if key.example is not None:
        yield "Example", f"{key.name.rpartition('.')[2]} = {toml_value(key.example)}"


def _row(key: ConfigKey) -> tuple[str, ...]:
    return key.name, key.type, "+".join(key.used_by), when_left_out(key), key.meaning


def _data(key: ConfigKey) -> dict[str, Any]:
    return {
        **key._asdict(),
        "used_by": [str(algorithm) for algorithm in key.used_by],
        "default": {str(algorithm): value for algorithm, value in key.default.items()},
        "thinking_default": {str(name): value for name, value in key.thinking_default.items()},
    }
