"""``sweep.toml``: a base config, and the ``--set`` values in which the runs of a sweep differ.

The file gives a grid, of which every combination is a run, or a list of runs. Each run is composed
and checked as ``flash train`` would do it.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, StrictBool, ValidationError
from pydantic_core import ErrorDetails

from flashrun.api.base import Section
from flashrun.api.config import RunConfig
from flashrun.api.sweep import MEMBERS_LIMIT, NAME_LIMIT, StopWorse, SweepMembership
from flashrun.cli.config import compose, load_config
from flashrun.cli.config.compose import ComposedConfig
from flashrun.cli.config.error_sentences import describe_error, printable
from flashrun.cli.config.problems import ConfigError, Origin, Problem
from flashrun.cli.config.run_spec import name_with_digest
from flashrun.cli.config.toml_lines import key_lines
from flashrun.cli.config.toml_text import toml_key, toml_value
from flashrun.cli.output.failure import UsageFailure
from flashrun.plan.resolve import resolve_eval

_NAME: Final = re.compile(rf"[a-z]([-a-z0-9]{{0,{NAME_LIMIT - 2}}}[a-z0-9])?")
_COUNTED: Final = 10**15
"""Larger grids are not counted: their number fills a page."""
_FORMS: Final = {
    "config": "the path of a config, or a list of paths",
    "name": "text",
    "stop_worse": "true, false or a table",
    "runs": 'a list of runs, each with its values, such as [["train.lora_rank=8"]]',
}
"""What the keys have to be that may have several forms."""


class StopWorseTable(Section):
    """``[stop_worse]``: as ``StopWorse``; without ``first_step``, the first evaluation."""

    first_step: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    factor: int = Field(default=2, ge=2, le=16)


class SweepTables(Section):
    """The file of a sweep."""

    config: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """The base config, and what is merged over it; paths begin at the folder of this file."""
    name: str | None = None
    """Name of the sweep; when left out, that of the file without its ending."""
    limit: Annotated[int, Field(ge=1, le=MEMBERS_LIMIT)] = 1
    """How many runs may run at once."""
    stop_worse: StopWorseTable | StrictBool = False
    """Whether worse runs end early, and at which steps."""
    grid: dict[str, Any] = {}
    """Key of the config → list of its values; each combination is a run."""
    runs: tuple[tuple[str, ...], ...] = ()
    """The ``--set`` values of each run."""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep before it is submitted."""

    name: str
    sets: tuple[str, ...]
    """The values in which it differs from the others."""
    composed: ComposedConfig


@dataclass(frozen=True)
class ComposedSweep:
    """A sweep whose runs are all valid."""

    membership: SweepMembership
    runs: tuple[SweepRun, ...]


def is_sweep_file(path: Path) -> bool:
    """Return whether a file is that of a sweep, and not the config of one run."""
    if path == load_config.STANDARD_INPUT or not path.is_file():
        return False  # a pipe can be read only once
    try:
        _, tables = compose.read_toml(load_config.read_config_file(path))
    except ConfigError:
        return False  # whoever reads it as a config says what is wrong with it
    return compose.is_sweep(tables)


def read_sweep(
    path: Path,
    sets: Sequence[str] = (),
    *,
    name: str | None = None,
    limit: int | None = None,
    stop_worse: bool = False,
    secret_names: Sequence[str] = (),
) -> ComposedSweep:
    """Read the file of a sweep and compose its runs; ``sets`` hold for each run.

    The arguments after ``sets`` take the place of what the file says. Names of runs end with a
    digest of what they train, so that the same sweep has the same names.

    Raises:
        ConfigError: with every problem of the file, or of the first run that has any.
        UsageFailure: a file cannot be read, or the sweep has no name.
    """
    tables = _read_tables(path)
    given = [tables.config] if isinstance(tables.config, str) else tables.config
    # The path - would be standard input, which no file can name.
    paths = [path.parent / file for file in given]
    files = [
        load_config.read_config_file(
            file.absolute() if file == load_config.STANDARD_INPUT else file
        )
        for file in paths
    ]
    name = next(given for given in (name, tables.name, path.stem) if given is not None)
    if not _NAME.fullmatch(name):
        raise UsageFailure(
            f"{name!r} cannot be the name of a sweep",
            f"give one with name in {path} or with --name: lower-case letters, digits and '-', "
            f"at most {NAME_LIMIT} characters",
        )
    runs: dict[str, SweepRun] = {}
    for own in _assignments(path, tables):
        composed = _compose(files, [*sets, *own], own)
        run = SweepRun(name_with_digest(name, composed.config, secret_names), own, composed)
        if run.name in runs:
            same = " and ".join(" ".join(item.sets) or "no --set" for item in (runs[run.name], run))
            raise ConfigError(
                [Problem(Origin(str(path)), f"two runs have the same settings ({same}): drop one")]
            )
        runs[run.name] = run
    planned = tuple(runs.values())
    return ComposedSweep(
        SweepMembership(
            name=name,
            limit=limit or tables.limit,
            stop_worse=_stop_worse(path, tables, planned, asked=stop_worse),
        ),
        planned,
    )


def _read_tables(path: Path) -> SweepTables:
    text, tables = compose.read_toml(load_config.read_config_file(path))
    if RunConfig.model_fields.keys() & tables.keys() and "config" not in tables:
        raise ConfigError(
            [
                Problem(
                    Origin(str(path)),
                    "this is the config of one run, which flash train submits: a sweep has a file "
                    "of its own, with config and [grid] or runs",
                )
            ]
        )
    lines = key_lines(text)
    try:
        return SweepTables.validate_toml(tables)
    except ValidationError as error:
        details = error.errors(include_url=False)
        # Of the two forms of one key, each has a problem of its own.
        first = {detail["loc"][0]: detail for detail in reversed(details)}
        raise ConfigError(
            Problem(
                Origin(str(path), lines.get((str(key),))),
                _sentence(str(key), detail),
            )
            for key, detail in sorted(first.items(), key=lambda item: str(item[0]))
        ) from None


def _sentence(key: str, detail: ErrorDetails) -> str:
    """Return what is wrong with a key, without the name of the form that was tried."""
    loc = tuple(part for part in detail["loc"] if part != StopWorseTable.__name__)
    if detail["type"] == "extra_forbidden" and len(loc) == 1:
        allowed = ", ".join(SweepTables.model_fields)
        return f"{key} is not a key of a sweep; allowed are {allowed}"
    if detail["type"] == "extra_forbidden":
        allowed = ", ".join(StopWorseTable.model_fields)
        return f"{loc[-1]} is not a key of [{key}]; allowed are {allowed}"
    inside = key == "stop_worse" and len(loc) > 1
    if key in _FORMS and detail["type"] != "missing" and not inside:
        return f"{key} must be {_FORMS[key]}, not {printable(detail['input'])}"
    return describe_error(detail | {"loc": loc})


def _assignments(path: Path, tables: SweepTables) -> list[tuple[str, ...]]:
    """Return the ``--set`` values of each run."""

    def refuse(sentence: str) -> ConfigError:
        return ConfigError([Problem(Origin(str(path)), sentence)])

    if bool(tables.grid) == bool(tables.runs):
        raise refuse("give the values of the runs in [grid] or in runs, and not in both")
    if tables.runs:
        found = list(tables.runs)
    else:
        axes = list(_axes(tables.grid, ()))
        if twice := [key for key, count in Counter(key for key, _ in axes).items() if count > 1]:
            raise refuse(f"the grid has {twice[0]} twice, in two spellings: drop one")
        if flawed := [key for key, values in axes if not isinstance(values, list) or not values]:
            raise refuse(f"grid.{flawed[0]} must be a list with the values of the key")
        count = math.prod(len(values) for _, values in axes)
        if count > MEMBERS_LIMIT:
            runs = f"{count:,}" if count < _COUNTED else f"more than {_COUNTED:,}"
            raise refuse(f"the grid has {runs} runs; at most {MEMBERS_LIMIT} are allowed")
        choices = [[f"{key}={toml_value(value)}" for value in values] for key, values in axes]
        found = list(itertools.product(*choices))
    if len(found) > MEMBERS_LIMIT:
        raise refuse(f"the sweep has {len(found):,} runs; at most {MEMBERS_LIMIT} are allowed")
    return found


def _axes(table: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a grid; a key may be written as tables, dotted or in quotes."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _axes(value, (*path, key))
        elif "." in key and not path:
            yield key, value
        else:
            yield ".".join(map(toml_key, (*path, key))), value


def _compose(
    files: Sequence[compose.ConfigFile], sets: Sequence[str], own: Sequence[str]
) -> ComposedConfig:
    try:
        return compose.compose(files, sets)
    except ConfigError as error:
        where = f"run with {' '.join(own)}" if own else "run without --set"
        raise ConfigError(_named(error.problems, where)) from None


def _named(problems: Iterable[Problem], where: str) -> Iterator[Problem]:
    for problem in problems:
        yield Problem(problem.origin, f"{problem.sentence} ({where})")


def _stop_worse(
    path: Path, tables: SweepTables, runs: Sequence[SweepRun], *, asked: bool
) -> StopWorse | None:
    """Return at which steps worse runs end; by default from the first evaluation on."""
    if tables.stop_worse is False and not asked:
        return None
    table = tables.stop_worse if isinstance(tables.stop_worse, StopWorseTable) else None
    table = table or StopWorseTable()
    first = runs[0].composed
    if any(resolve_eval(run.composed.config, run.composed.train) is None for run in runs):
        sentence = "stop_worse compares evaluations, and a run of the sweep is not evaluated"
        raise ConfigError([Problem(Origin(str(path)), sentence)])
    step = table.first_step or first.config.eval.every or first.train.save_every
    return StopWorse(first_step=step, factor=table.factor)
