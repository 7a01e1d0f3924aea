"""What ``--dry-run`` prints: the resolved config, where each value came from, and the answers.

Offline the answers are the notes of the checks on this machine; with ``--server`` the cluster
answers too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import typer

from flashrun.cli.config.compose import ComposedConfig
from flashrun.cli.config.toml_text import toml_key, toml_value
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import ExitCode, UsageFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Tone
from flashrun.plan.resolve import resolve_eval


@dataclass
class DryRunAnswers:
    """The answers about a config: notes and problems, and the results of checks in the cluster."""

    server: bool = False
    """Whether the cluster was asked."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    def add(self, check: str, line: str, **data: Any) -> None:
        """Record the result of a check: a line for people, data for programs."""
        self.lines[check] = line
        self.data[check] = data


def refuse_name(output: OutputFormat) -> None:
    """Refuse ``-o name``: a dry run creates no run, so there is no name to print."""
    if output is OutputFormat.NAME:
        raise UsageFailure("a dry run creates no run, so it has no name to print", "use -o json")


def print_dry_run(composed: ComposedConfig, answers: DryRunAnswers, output: OutputFormat) -> None:
    """Print a resolved config with the answers; exits with 2 when there are problems."""
    for note in answers.notes:
        terminal.say(f"note: {note}")
    settings = list_settings(composed)
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        terminal.write_data(to_data(settings, answers), output)
    else:
        terminal.write("\n".join((to_toml(settings), *_comments(answers))))
    for problem in answers.problems:
        terminal.say(f"error: {problem}", Tone.BAD)
    if answers.problems:
        raise typer.Exit(ExitCode.USAGE)


# --- the resolved config ------------------------------------------------------------------------


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
        *_eval_settings(composed),
    ]
    for table in ("worker_env", "wandb", "budget"):
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


_EVAL_LEFT_OUT: Final = {
    "split": "eval, if the environment has dataset/eval.jsonl",
    "every": "at every save",
}
"""What replaces a key of ``eval`` that has no default value."""


def _eval_settings(composed: ComposedConfig) -> Iterable[Setting]:
    given = composed.config.eval
    resolved = resolve_eval(composed.config, composed.train)
    for key in type(given).model_fields:
        if key in given.model_fields_set and getattr(given, key) is not None:
            used = resolved is not None or key == "enabled"
            yield _setting(composed, "eval", key, getattr(given, key))._replace(used=used)
        elif resolved is None or key == "enabled":
            continue
        elif key in _EVAL_LEFT_OUT:
            yield Setting("eval", key, None, _EVAL_LEFT_OUT[key], used=False)
        else:
            yield Setting("eval", key, getattr(resolved, key), "default")


def _default(composed: ComposedConfig, key: str) -> Any:
    """Return the recipe's value of a key; None where it has none."""
    value = getattr(composed.train, key)
    return None if value == () else value


def _setting(
    composed: ComposedConfig, table: str, key: str, value: Any, *, default: str = "default"
) -> Setting:
    origin = composed.origin(*((table, key) if table else (key,)))
    return Setting(table, key, value, str(origin) if origin else default)


# --- as text and as data -------------------------------------------------------------------------


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
    code = f"{toml_key(setting.key)} = {toml_value(setting.value)}"
    return (code, setting.origin) if setting.used else (f"# {code}", f"{setting.origin}, no effect")


def to_data(settings: Sequence[Setting], answers: DryRunAnswers) -> dict[str, Any]:
    """Return settings for programs: nested tables, where each value came from, and the answers."""
    data = {"state": "dry_run", "spec": _tables(settings), "sources": _origins(settings)}
    if not answers.server:
        return data
    return data | {
        "server": answers.data,
        "notes": answers.notes,
        "problems": answers.problems,
    }


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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _comments(answers: DryRunAnswers) -> list[str]:
    """Return the last lines of the TOML, which say what is not in the config."""
    if not answers.server:
        chosen = "name, pool, GPUs, image, version of the environment and the model"
        return [f"# chosen by the platform: {chosen}"]
    lines = (f"# {check}: {line}" for check, line in answers.lines.items())
    return ["# from the cluster", *lines]
