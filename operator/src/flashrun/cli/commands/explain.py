"""``flash explain``: what a key of the config means, read off the models that check it."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Final, NamedTuple

import typer

from flashrun.api.config import GRPO_ONLY, SFT_ONLY, Algorithm, EnvironmentConfig, RunConfig
from flashrun.api.generate.config_schema import toml_schema
from flashrun.cli.config import compose
from flashrun.cli.config.show_config import toml_value
from flashrun.cli.options import Form, Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.tables import Cell, Table
from flashrun.plan.resolve import resolve_train

_OTHERS: Final = {Algorithm.SFT: GRPO_ONLY, Algorithm.GRPO: SFT_ONLY}
"""Keys that an algorithm has no use for."""
_BOUNDS: Final = {
    "minimum": "at least {:,}",
    "exclusiveMinimum": "above {:,}",
    "maximum": "at most {:,}",
    "minLength": "at least {:,} characters",
    "maxLength": "at most {:,} characters",
    "maxItems": "at most {:,} entries",
    "maxProperties": "at most {:,} entries",
}
"""How bounds of a JSON Schema are said."""


class Key(NamedTuple):
    """One key of a config."""

    name: str
    """Full name, as ``--set`` takes it."""
    meaning: str
    type: str
    bounds: str
    required: bool
    used_by: tuple[Algorithm, ...]
    default: dict[Algorithm, Any]
    """What it is when left out; an algorithm that sets nothing is not in here."""
    thinking_default: dict[Algorithm, Any]
    """The same in runs that think."""
    example: Any


def beginning_with(text: str) -> list[str]:
    """Return the keys that may be meant, for a shell that completes one."""
    return [key.name for key in keys() if key.name.startswith(text)]


def explain(
    key: Annotated[
        str | None,
        typer.Argument(
            help="Key, such as train.steps or steps; all keys when left out.",
            metavar="KEY",
            autocompletion=beginning_with,
        ),
    ] = None,
    output: Form = Output.TABLE,
) -> None:
    """Say what a key of the config means.

    Also its type, its bounds, and what it is when left out, read off the models that check it.
    Without KEY all keys are listed; the name of a table lists the keys in it.

    Example: flash explain train.max_length
    """
    found = list(keys()) if key is None else named(key)
    match output:
        case Output.JSON | Output.YAML:
            data = [_data(item) for item in found]
            terminal.write_data(data if len(data) != 1 else data[0], output)
        case Output.NAME:
            for item in found:
                terminal.write(item.name)
        case Output.TABLE if len(found) == 1:
            for label, text in told(found[0]):
                terminal.write(f"{label + ':':<13}{text}")
        case Output.TABLE:
            terminal.write_table(
                Table(
                    ("KEY", "TYPE", "USED BY", "LEFT OUT", "MEANING"),
                    tuple(tuple(map(Cell, _row(item))) for item in found),
                )
            )


def named(text: str) -> list[Key]:
    """Return the key that ``text`` names, or the keys of the table that it names.

    Raises:
        UsageFailure: there is no such key; says which one may be meant.
    """
    wanted = text.strip().strip("[]").replace("-", "_").lower()
    known = list(keys())
    elsewhere = compose.OTHER_NAMES.get(wanted.rpartition(".")[2])
    for candidates in (
        [key for key in known if key.name == wanted],
        [key for key in known if key.name.partition(".")[0] == wanted],
        [key for key in known if key.name.rpartition(".")[2] == wanted],
        [key for key in known if key.name == elsewhere],
    ):
        if candidates:
            return candidates
    if tuple(wanted.split(".")) in compose.PLATFORM_KEYS:
        raise UsageFailure(f"{wanted} is no key to set: the platform chooses it")
    raise UsageFailure(f"there is no key {text!r}", _near(wanted, [key.name for key in known]))


def _near(wanted: str, known: Iterable[str]) -> str:
    forms = {form: name for name in known for form in (name.rpartition(".")[2], name)}
    near = get_close_matches(wanted, forms, n=1)
    return f"did you mean {forms[near[0]]}?" if near else "flash explain lists all keys"


def keys() -> Iterator[Key]:
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
    """Return every value that the recipes fill in, by algorithm."""
    environment = EnvironmentConfig(id="any/environment")
    made = (
        RunConfig(model="any", algorithm=algorithm, thinking=thinking, environment=environment)
        for algorithm in Algorithm
    )
    return {
        config.algorithm: resolve_train(config).model_dump(mode="json", exclude_none=True)
        for config in made
    }


def _key(
    name: str,
    field: dict[str, Any],
    required: bool,
    recipes: dict[bool, dict[Algorithm, dict[str, Any]]],
) -> Key:
    table, _, key = name.rpartition(".")
    used_by = tuple(algorithm for algorithm in Algorithm if key not in _OTHERS[algorithm])
    options = field.get("anyOf", [field])
    default, thinking_default = (
        {
            algorithm: value
            for algorithm in used_by
            for value in (
                recipes[thinking][algorithm].get(key) if table == "train" else None,
                field.get("default"),
            )
            if value is not None
        }
        for thinking in (False, True)
    )
    return Key(
        name=name,
        meaning=_meaning(field["description"]),
        type=" or ".join(_type(option) for option in options),
        bounds=_bounds(options[-1]),
        required=required,
        used_by=used_by,
        default=default,
        thinking_default=thinking_default,
        example=field.get("examples", [None])[0],
    )


def _meaning(description: str) -> str:
    """Return a description without the algorithm that it begins with, which is told apart."""
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
    """Say what limits a value, beside its type."""
    said = [
        words.format(field[name])
        for name, words in _BOUNDS.items()
        if name in field and not (name == "minLength" and field[name] == 1)
    ]
    return ", ".join(said)


def when_left_out(key: Key) -> str:
    """Say what a key is when it is left out; empty when that is nothing."""
    if key.required:
        return "required"
    both = [
        (value, key.thinking_default[algorithm], algorithm)
        for algorithm, value in key.default.items()
    ]
    said = {algorithm: _with_thinking(plain, thinking) for plain, thinking, algorithm in both}
    if len(said) == len(key.used_by) and len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{text} for {algorithm}" for algorithm, text in said.items())


def _with_thinking(plain: Any, thinking: Any) -> str:
    text = toml_value(plain)
    return text if thinking == plain else f"{text} ({toml_value(thinking)} with thinking)"


def told(key: Key) -> Iterator[tuple[str, str]]:
    """Yield what there is to say about a key, as pairs of a label and a text."""
    yield "Key", key.name
    yield "Meaning", key.meaning
    yield "Type", f"{key.type}; {key.bounds}" if key.bounds else key.type
    yield "Used by", " and ".join(key.used_by)
    if left_out := when_left_out(key):
        yield "Left out", left_out
    if key.example is not None:
        yield "Example", f"{key.name.rpartition('.')[2]} = {toml_value(key.example)}"


def _row(key: Key) -> tuple[str, ...]:
    return key.name, key.type, "+".join(key.used_by), when_left_out(key), key.meaning


def _data(key: Key) -> dict[str, Any]:
    return {
        **key._asdict(),
        "used_by": [str(algorithm) for algorithm in key.used_by],
        "default": {str(algorithm): value for algorithm, value in key.default.items()},
        "thinking_default": {str(name): value for name, value in key.thinking_default.items()},
    }
