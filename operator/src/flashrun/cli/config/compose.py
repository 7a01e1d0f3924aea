"""Compose files and ``--set`` into one validated config that knows where each value was given.

The base file comes first, each overlay is merged into it (tables merge, lists and scalars replace),
then each ``--set``; only the result is validated. Every problem is reported at once, with its
place, what was given and what is allowed. This module reads no files: the caller passes their
bytes. Files are TOML; a file that begins with a brace is JSON, the form in which a resolved spec is
printed for programs.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from typing import Any, Final, NamedTuple, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flashrun.api import secret_patterns
from flashrun.api.config import RunConfig
from flashrun.api.records import ResolvedTrain
from flashrun.cli.config.error_sentences import describe_error, printable
from flashrun.cli.config.problems import ConfigError, Origin, Problem
from flashrun.cli.config.toml_lines import Path, deep_key, key_lines
from flashrun.plan.resolve import resolve_train

SIZE_LIMIT: Final = 262_144
"""Largest config file, in bytes: reading one of this size takes well under a second."""
DEPTH_LIMIT: Final = 40
"""Deepest nesting of tables and lists."""

PROBLEMS_SHOWN: Final = 40
"""Most problems that one error lists."""

PLATFORM_KEYS: Final[tuple[Path, ...]] = (
    ("run_id",),
    ("gpu",),
    ("model_policy",),
    ("train", "hf_repo"),
    ("environment", "resolved_sha"),
)
"""Keys that the platform chooses: ignored, so that a resolved spec can be submitted again."""

_SWEEP_KEYS: Final = ("grid", "runs", "config")
"""Keys that only the file of a sweep has."""
_TEXT_SECTIONS: Final = frozenset({"wandb", "worker_env"})
"""Sections whose values are strings, also when ``--set`` gives what looks like a number."""


class ConfigFile(NamedTuple):
    """A config file as it was read: its name in messages, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class ComposedConfig:
    """A validated config, with every default filled in and the origin of each given key."""

    config: RunConfig
    train: ResolvedTrain
    """``config.train`` with every default filled in."""
    origins: Mapping[Path, Origin]
    notes: tuple[str, ...] = ()
    """What was accepted and has no effect, one sentence each."""

    def origin(self, *path: str) -> Origin | None:
        """Return where the value at ``path``, or the first one inside it, was given, or None."""
        return self.origins.get(path) or _first_origin_inside(self.origins, path)

    def origin_of_key(self, key: str) -> Origin:
        """Return where a dotted key was given; for a key that was left out, where the model was.

        The default of such a key depends on the model, and so do its limits.
        """
        return self.origin(*key.split(".")) or self.origin("model") or Origin("config")


@dataclass
class _Draft:
    """Tables while they are composed; ``origins`` has where each key was given last."""

    tables: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, Origin] = field(default_factory=dict)

    def put(self, path: Path, value: Any, origin: Origin, lines: Mapping[Path, int]) -> None:
        """Merge ``value`` in at ``path``: tables merge, everything else replaces."""
        here = Origin(origin.source, lines.get(path, origin.line))
        parent, key = self.table(path[:-1]), path[-1]
        if not isinstance(value, dict) or not isinstance(parent.get(key), dict):
            self._drop_origins(path, parent.get(key))
            parent[key] = {} if isinstance(value, dict) else value
        self.origins.setdefault(path, here)
        if isinstance(value, dict):
            for inner, item in value.items():
                self.put((*path, inner), item, here, lines)

    def table(self, path: Path) -> dict[str, Any]:
        """Return the table at ``path``; an empty one is created when it is missing.

        Raises:
            LookupError: with the dotted path of the first part that is not a table.
        """
        table = self.tables
        for depth, key in enumerate(path):
            inner = table.setdefault(key, {})
            if not isinstance(inner, dict):
                raise LookupError(".".join(path[: depth + 1]))
            table = inner
        return table

    def drop(self, path: Path) -> bool:
        """Remove the value at ``path``; return whether there was one."""
        table: Any = self.tables
        for key in path[:-1]:
            table = table.get(key) if isinstance(table, dict) else None
        if not isinstance(table, dict) or path[-1] not in table:
            return False
        self._drop_origins(path, table.pop(path[-1]))
        return True

    def _drop_origins(self, path: Path, value: Any) -> None:
        self.origins.pop(path, None)
        for key, inner in value.items() if isinstance(value, dict) else ():
            self._drop_origins((*path, key), inner)


def compose(files: Sequence[ConfigFile], sets: Sequence[str] = ()) -> ComposedConfig:
    """Compose ``files``, the base first, and ``sets`` into one config.

    Raises:
        ConfigError: with every problem.
    """
    draft = _Draft()
    problems: list[Problem] = []
    for file in files:
        problems += _merge(draft, file)
    for assignment in sets:
        problems += _assign(draft, assignment)
    if problems:
        raise ConfigError(problems)
    notes = _drop_platform_keys(draft)
    _drop_unset_keys(draft)
    try:
        config = RunConfig.validate_toml(draft.tables)
    except ValidationError as error:
        raise ConfigError(_problems(error, draft, files)) from None
    return ComposedConfig(config, resolve_train(config), draft.origins, tuple(notes))


def _merge(draft: _Draft, file: ConfigFile) -> list[Problem]:
    try:
        text, tables = _read(file)
    except _UnreadableError as error:
        return [Problem(Origin(file.name, error.line), error.sentence)]
    if is_sweep(tables):
        return [
            Problem(
                Origin(file.name),
                "this is the file of a sweep, and not the config of one run: flash sweep start "
                "submits its runs, and flash render prints them",
            )
        ]
    lines = {} if _is_json(text) else key_lines(text)
    for key, value in tables.items():
        draft.put((key,), value, Origin(file.name), lines)
    return []


def is_sweep(tables: Mapping[str, Any]) -> bool:
    """Return whether these are the tables of a sweep's file, and not those of a config."""
    return any(key in tables for key in _SWEEP_KEYS) and "model" not in tables


class _UnreadableError(Exception):
    """A file or an assignment cannot be read as a config."""

    def __init__(self, sentence: str, line: int | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.line = line


def read_toml(file: ConfigFile) -> tuple[str, dict[str, Any]]:
    """Return the text of a TOML file, with plain line ends, and its tables.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        text = _text(file)
        return text, _parsed(text, _parse_toml)
    except _UnreadableError as error:
        raise ConfigError([Problem(Origin(file.name, error.line), error.sentence)]) from None


def _read(file: ConfigFile) -> tuple[str, dict[str, Any]]:
    """Return the file's text, with plain line ends, and its tables."""
    text = _text(file)
    return text, _parsed(text, _parse_json if _is_json(text) else _parse_toml)


def _text(file: ConfigFile) -> str:
    if len(file.data) > SIZE_LIMIT:
        raise _UnreadableError(
            f"the file is larger than the limit of {SIZE_LIMIT:,} bytes; put data into the "
            "environment"
        )
    try:
        return file.data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = file.data.count(b"\n", 0, error.start) + 1
        raise _UnreadableError("this is not UTF-8 text, and TOML must be", line) from None


def _parsed(text: str, parse: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    try:
        return parse(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error)) from None
    except json.JSONDecodeError as error:
        where = f"{error.msg} at column {error.colno}"
        raise _UnreadableError(f"this is not JSON: {where}", error.lineno) from None
    except ValueError:
        raise _UnreadableError("a number has too many digits") from None


def _is_json(text: str) -> bool:
    """Return whether a file is JSON: TOML cannot begin with a brace."""
    return text.lstrip().startswith("{")


def _parse_json(text: str) -> dict[str, Any]:
    """Read JSON: a config, or the output of ``flash train --dry-run -o json``."""
    try:
        document: dict[str, Any] = json.loads(text, object_pairs_hook=_each_key_once)
    except RecursionError:
        raise _too_deep_error() from None
    if _depth(document) > DEPTH_LIMIT:
        raise _too_deep_error()
    if not _is_text(json.dumps(document, ensure_ascii=False)):
        raise _UnreadableError(
            "a string holds half of a surrogate pair; remove it, as it is not text"
        )
    spec = document.get("spec")
    return spec if isinstance(spec, dict) and "state" in document else document


def _is_text(text: str) -> bool:
    """Return whether ``text`` can be encoded: JSON and shells can bring lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise _UnreadableError("a key is given twice in one object; remove one of them")
    return table


def _too_deep_error() -> _UnreadableError:
    return _UnreadableError(f"tables and lists may nest at most {DEPTH_LIMIT} levels deep")


def _parse_toml(text: str) -> dict[str, Any]:
    if (line := deep_key(text, DEPTH_LIMIT)) is not None:
        error = _too_deep_error()
        error.line = line
        raise error
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise _too_deep_error() from None
    if _depth(tables) > DEPTH_LIMIT:
        raise _too_deep_error()
    return tables


def _depth(tables: dict[str, Any]) -> int:
    """Return how deep ``tables`` nest.

    There is no recursion, as the depth is not limited yet.
    """
    level: list[Any] = [tables]
    depth = 0
    while level and depth <= DEPTH_LIMIT:
        values = [list(item.values()) if isinstance(item, dict) else item for item in level]
        level = [inner for value in values for inner in value if isinstance(inner, dict | list)]
        depth += 1
    return depth


def _syntax_error(message: str) -> _UnreadableError:
    """Turn the parser's "… (at line 3, column 5)" into a sentence and a line."""
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message)
    if match is None:
        return _UnreadableError(f"this is not TOML: {message}")
    what, line, column = match.groups()
    number = int(line) if line else None
    if what == "Cannot overwrite a value" or what.startswith("Cannot declare"):
        return _UnreadableError("this key or table was given before; TOML allows each once", number)
    where = f"column {column}" if column else "the end of the file"
    return _UnreadableError(f"this is not TOML: {what} at {where}", number)


# --- --set --------------------------------------------------------------------------------------


def parse_assignments(sets: Iterable[str]) -> dict[str, Any]:
    """Return the tables that ``key=value`` assignments make.

    Raises:
        ConfigError: an assignment cannot be read.
    """
    draft = _Draft()
    if problems := [problem for text in sets for problem in _assign(draft, text)]:
        raise ConfigError(problems)
    return draft.tables


def _assign(draft: _Draft, assignment: str) -> list[Problem]:
    if not _is_text(assignment):
        return [Problem(Origin("--set"), "an assignment is not UTF-8 text; retype it")]
    key, equals, value = (part.strip() for part in assignment.partition("="))
    origin = Origin(
        f"--set {printable(key)}" if secret_patterns.describe_secret(key) else f"--set {key}"
    )
    if not equals:
        return [Problem(origin, "write it as key=value, such as --set train.lora_rank=16")]
    path = _split_key(key)
    if not all(path):
        return [Problem(origin, "the key is empty; write it as table.key=value")]
    if len(path) > DEPTH_LIMIT or len(value) > SIZE_LIMIT:
        return [
            Problem(origin, "the key or the value is too long; put it into a config file instead")
        ]
    try:
        _check_parents(path)
        draft.put(path, _parse_value(path, value), origin, {})
    except _UnreadableError as error:
        return [Problem(origin, error.sentence)]
    except LookupError as error:
        return [Problem(origin, f"{error.args[0]} is not a table, so nothing can be set inside it")]
    return []


def _check_parents(path: Path) -> None:
    """Raise ``LookupError`` with the first key before the last that can never be a table."""
    section: Any = RunConfig
    for depth, key in enumerate(path[:-1], start=1):
        if key not in section.model_fields:
            return
        section = section.model_fields[key].annotation
        if get_origin(section) is dict:
            return
        if not hasattr(section, "model_fields"):
            raise LookupError(".".join(path[:depth]))


def _split_key(key: str) -> Path:
    """Split a key at its dots, except inside quotes as in ``environment.params."a.b"``."""
    if '"' in key or "'" in key:
        try:
            tomllib.loads(f"{key} = 0")
            return next(iter(key_lines(f"{key} = 0")), ("",))
        except tomllib.TOMLDecodeError:
            return ("",)
    return tuple(part.strip() for part in key.split("."))


def _parse_value(path: Path, text: str) -> Any:
    """Read the value of one ``--set``: as TOML if it is, else as list, number or string."""
    if path[0] in _TEXT_SECTIONS and len(path) > 1:
        literal = _toml(text)
        return literal if isinstance(literal, str) else text
    literal = _toml(text)
    if literal is None and text.startswith("[") and text.endswith("]"):
        return [_scalar(piece) for piece in _pieces(text[1:-1])]
    return _scalar(text) if literal is None else literal


def _scalar(text: str) -> Any:
    literal = _toml(text)
    if literal is not None:
        return literal
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _toml(text: str) -> Any:
    """Return the TOML value that ``text`` is, or None; dates stay text.

    The text is read inside an inline table, where nothing can be appended to a value: a comment
    or a second key is not read as part of it.
    """
    try:
        document = tomllib.loads(f"outer = {{inner = {text}}}")
    except ValueError:
        return None
    except RecursionError:
        raise _too_deep_error() from None
    if document.keys() != {"outer"} or document["outer"].keys() != {"inner"}:
        return None
    value = document["outer"]["inner"]
    if _depth({"": value}) > DEPTH_LIMIT:
        raise _too_deep_error()
    return None if isinstance(value, date | time) else value


def _pieces(text: str) -> list[str]:
    """Split a list of unquoted values at the commas outside quotes."""
    pieces = re.findall(r"""(?:"[^"]*"|'[^']*'|[^,])+""", text)
    return [piece.strip() for piece in pieces if piece.strip()]


# --- keys without effect ------------------------------------------------------------------------


def _drop_platform_keys(draft: _Draft) -> list[str]:
    ignored = [".".join(path) for path in PLATFORM_KEYS if draft.drop(path)]
    return [f"ignored {', '.join(ignored)}: the platform chooses this"] if ignored else []


def _drop_unset_keys(draft: _Draft) -> None:
    """Drop what counts as left out: null, which only JSON has, and an empty algorithm."""
    if not draft.tables.get("algorithm", True):
        draft.drop(("algorithm",))
    for section in ("environment", "train", "eval", "worker_env", "wandb", "budget"):
        if isinstance(table := draft.tables.get(section), dict):
            _drop_nulls(draft, table, (section,))
    _drop_nulls(draft, draft.tables, ())


def _drop_nulls(draft: _Draft, table: dict[str, Any], path: Path) -> None:
    for key in [key for key, value in table.items() if value is None]:
        draft.drop((*path, key))


# --- problems of the result ---------------------------------------------------------------------


def _problems(
    error: ValidationError, draft: _Draft, files: Sequence[ConfigFile]
) -> Iterable[Problem]:
    base = Origin(files[0].name if files else "config")
    details = error.errors(include_url=False)
    problems = [
        Problem(
            _origin(draft, detail, base), secret_patterns.redact_secrets(describe_error(detail))
        )
        for detail in details[:PROBLEMS_SHOWN]
    ]
    problems.sort(key=lambda problem: problem.origin.line or 0)
    if (more := len(details) - PROBLEMS_SHOWN) > 0:
        problems.append(Problem(base, f"{more:,} more problems are not listed"))
    return problems


def _origin(draft: _Draft, detail: ErrorDetails, base: Origin) -> Origin:
    """Return where the nearest enclosing key of an error was given."""
    path = (*map(str, detail["loc"]), *_inner_path(detail))
    for length in range(len(path), 0, -1):
        key = path[:length]
        if origin := draft.origins.get(key) or _first_origin_inside(draft.origins, key):
            return origin
    return base


def _first_origin_inside(origins: Mapping[Path, Origin], path: Path) -> Origin | None:
    """Return where the first key of the table at ``path`` was given."""
    return next((origin for known, origin in origins.items() if known[: len(path)] == path), None)


def _inner_path(detail: ErrorDetails) -> Path:
    """Return the keys inside a free-form table that the error's own sentence begins with."""
    first = str(detail.get("ctx", {}).get("error", "")).partition(" ")[0]
    return tuple(filter(None, re.sub(r"\[\d+\]", "", first).split(".")))
