"""From values to text: what the commands print, as pure functions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NamedTuple

from flashrun.plan import resolve
from flashrun.spec.catalog import Catalog
from flashrun.spec.compose import Composed
from flashrun.spec.config import Algorithm
from flashrun.spec.public import PublicPool
from flashrun.spec.records import ResolvedTrain
from flashrun.spec.run import (
    TERMINAL,
    CheckpointStatus,
    FlashRun,
    FlashRunStatus,
    Phase,
    ProgressStatus,
)


class Tone(Enum):
    """What a piece of text is, for colouring."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    ACTIVE = "active"
    QUIET = "quiet"


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    tone: Tone = Tone.PLAIN


class Table(NamedTuple):
    """A header and rows of as many cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


_TONES: Final = {
    Phase.SUCCEEDED: Tone.GOOD,
    Phase.FAILED: Tone.BAD,
    Phase.CANCELLED: Tone.QUIET,
    Phase.RUNNING: Tone.ACTIVE,
}


def tone_of(phase: Phase) -> Tone:
    """Return how a phase is coloured."""
    return _TONES.get(phase, Tone.PLAIN)


def plain_rows(table: Table) -> list[str]:
    """Return one line a record, cells separated by tabs, for pipes."""
    return ["\t".join(cell.text for cell in row) for row in table.rows]


# --- quantities ---------------------------------------------------------------------------------


def size(count: int) -> str:
    """Return a number of bytes in the largest unit that keeps it above one."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{whole % 60}s" if minutes else f"{whole}s"


def age(since: datetime | None, now: datetime) -> str:
    """Return how long ago something was; empty when that is unknown."""
    return duration((now - since).total_seconds()) if since else ""


# --- one run ------------------------------------------------------------------------------------


def progress_line(status: FlashRunStatus) -> str:
    """Return the one line that says where a run is: phase, step, metric, time left."""
    parts: list[str] = [status.phase]
    if status.pending and status.phase not in TERMINAL:
        parts.append(status.pending.message.rstrip("."))
    elif (progress := status.progress) is not None:
        parts += progress_parts(progress)
    return " · ".join(part for part in parts if part)


def progress_parts(progress: ProgressStatus) -> list[str]:
    """Return step, metrics and time left, in this order, as far as they are known."""
    parts = [progress.activity]
    if progress.total_steps:
        parts.append(f"step {progress.step}/{progress.total_steps} ({progress.percent}%)")
    parts += [f"{name} {value}" for name, value in _headline(progress.metrics).items()]
    if progress.eta_seconds is not None:
        parts.append(f"{duration(progress.eta_seconds)} left")
    return [part for part in parts if part]


def _headline(metrics: Mapping[str, str]) -> dict[str, str]:
    """Return the metric people look at first: the reward where there is one, else the loss."""
    for name in ("reward", "loss"):
        if name in metrics:
            return {name: metrics[name]}
    return dict(list(metrics.items())[:1])


def summary(run: FlashRun, now: datetime) -> list[tuple[str, str]]:
    """Return what ``flash status`` says, as pairs of a label and a text."""
    status = run.status
    rows = [
        ("Run", f"{run.namespace}/{run.name}"),
        ("Phase", status.phase),
        ("Model", f"{run.spec.model} ({run.spec.algorithm})"),
        ("Environment", run.spec.environment.id),
        *_why(status),
        *_times(run, now),
    ]
    if progress := status.progress:
        if status.phase in TERMINAL:
            progress = progress.model_copy(update={"activity": "", "eta_seconds": None})
        rows.append(("Progress", " · ".join(progress_parts(progress))))
    if status.resolved and status.resolved.pool:
        rows.append(("GPU", f"{status.resolved.gpus} of pool {status.resolved.pool}"))
    rows += [("Attempt", line) for line in _attempts(status)]
    if status.checkpoint_count:
        newest = f", newest {status.checkpoints[0].ref}" if status.checkpoints else ""
        rows.append(("Checkpoints", f"{status.checkpoint_count}{newest}"))
    if status.adapter:
        rows.append(("Adapter", f"{status.adapter.ref} ({size(status.adapter.bytes)})"))
    if status.storage:
        rows.append(("Storage", status.storage))
    return rows


def _why(status: FlashRunStatus) -> list[tuple[str, str]]:
    if status.failure:
        hint = [("Hint", status.failure.hint)] if status.failure.hint else []
        return [("Failure", f"{status.failure.message} ({status.failure.reason})"), *hint]
    if status.pending and status.phase not in TERMINAL:
        return [("Waiting", f"{status.pending.message} ({status.pending.reason})")]
    return []


def _times(run: FlashRun, now: datetime) -> list[tuple[str, str]]:
    status = run.status
    rows = [("Created", f"{age(run.created, now)} ago")] if run.created else []
    if status.start_time:
        end = status.completion_time or now
        rows.append(("Duration", duration((end - status.start_time).total_seconds())))
    if status.gpu_seconds:
        rows.append(("GPU time", duration(status.gpu_seconds)))
    return rows


def _attempts(status: FlashRunStatus) -> list[str]:
    if len(status.attempts) < 2 and not any(attempt.reason for attempt in status.attempts):
        return []
    lines = []
    for attempt in status.attempts:
        steps = f", steps {attempt.from_step or 0} to {attempt.to_step}" if attempt.to_step else ""
        where = f" on {attempt.node}" if attempt.node else ""
        number = attempt.number or "set-up"  # a pod that died before it could claim an attempt
        lines.append(f"{number}: {attempt.reason or 'running'}{where}{steps}")
    return lines


def outcome(run: FlashRun) -> tuple[str, Tone]:
    """Return the sentence that ends a followed run."""
    status = run.status
    match status.phase:
        case Phase.SUCCEEDED:
            return f"{run.name} succeeded. Get the adapter: flash pull {run.name}", Tone.GOOD
        case Phase.CANCELLED:
            return f"{run.name} was cancelled; {kept(run)}", Tone.QUIET
        case Phase.FAILED:
            failure = status.failure
            why = f": {failure.message}" if failure else "."
            hint = f" {failure.hint}" if failure and failure.hint else ""
            return f"{run.name} failed{why}{hint}", Tone.BAD
        case _:
            return f"{run.name}: {progress_line(status)}", Tone.PLAIN


def kept(run: FlashRun) -> str:
    """Say what a run leaves behind."""
    count = run.status.checkpoint_count
    if run.status.adapter:
        return f"its adapter is kept: flash pull {run.name}"
    if not count:
        return "it had saved nothing yet"
    noun = "checkpoint is" if count == 1 else "checkpoints are"
    return f"its {count} {noun} kept: flash checkpoints {run.name}"


def checkpoint_lines(found: Iterable[CheckpointStatus]) -> list[str]:
    """Return ``step N RUN/step-N`` for each checkpoint."""
    return [f"step {checkpoint.step} {checkpoint.ref}" for checkpoint in found]


# --- tables -------------------------------------------------------------------------------------


def runs_table(runs: Iterable[FlashRun], now: datetime) -> Table:
    """Return the runs, newest first."""
    oldest = datetime.min.replace(tzinfo=UTC)
    ordered = sorted(runs, key=lambda run: (run.created or oldest, run.name), reverse=True)
    return Table(
        ("RUN", "PHASE", "STEP", "ALGORITHM", "MODEL", "POOL", "AGE"),
        tuple(
            (
                Cell(run.name),
                Cell(run.status.phase, tone_of(run.status.phase)),
                Cell(_step(run.status)),
                Cell(run.spec.algorithm),
                Cell(run.spec.model),
                Cell(run.status.resolved.pool if run.status.resolved else ""),
                Cell(age(run.created, now)),
            )
            for run in ordered
        ),
    )


def _step(status: FlashRunStatus) -> str:
    progress = status.progress
    return f"{progress.step}/{progress.total_steps}" if progress and progress.total_steps else ""


def checkpoints_table(found: Iterable[CheckpointStatus], now: datetime) -> Table:
    """Return the checkpoints with size and age."""
    return Table(
        ("STEP", "REF", "SIZE", "AGE"),
        tuple(
            (
                Cell(str(checkpoint.step)),
                Cell(checkpoint.ref),
                Cell(size(checkpoint.bytes)),
                Cell(age(checkpoint.created_time, now)),
            )
            for checkpoint in found
        ),
    )


def models_table(catalog: Catalog, pools: Sequence[PublicPool] = ()) -> Table:
    """Return the models with their limits and, when pools are known, what they can run."""
    largest = max((pool.vram for pool in pools), default=None)
    return Table(
        ("MODEL", "PARAMETERS", "THINKING", "LORA CAP", "CONTEXT", "GPU GIB SFT/GRPO", "FITS"),
        tuple(
            (
                Cell(model.id),
                Cell(f"{model.parameters:g}B"),
                Cell(model.thinking),
                Cell(str(model.lora_rank_cap)),
                Cell(str(model.context)),
                Cell(f"{model.vram_sft:g}/{model.vram_grpo:g}"),
                _fits(model.vram_sft, model.vram_grpo, largest),
            )
            for model in catalog
        ),
    )


def _fits(sft: float, grpo: float, largest: float | None) -> Cell:
    if largest is None:
        return Cell("")
    fitting = [name for name, need in (("sft", sft), ("grpo", grpo)) if need <= largest]
    return Cell("+".join(fitting), Tone.GOOD) if fitting else Cell("none", Tone.BAD)


# --- the resolved config ------------------------------------------------------------------------


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
