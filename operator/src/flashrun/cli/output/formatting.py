"""Format values as text for the terminal; pure functions."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from flashrun.api import evaluation
from flashrun.api.reasons import TERMINAL, ConditionType, Phase, Reason
from flashrun.api.resource import (
    CheckpointStatus,
    ConditionStatus,
    EvaluationStatus,
    FlashRun,
    FlashRunStatus,
    ProgressStatus,
)
from flashrun.api.sentences import join_sentences, with_stop
from flashrun.cli.output.metric_series import headline
from flashrun.cli.output.tables import Cell, Table, Tone

_TONES: Final = {
    Phase.SUCCEEDED: Tone.GOOD,
    Phase.FAILED: Tone.BAD,
    Phase.CANCELLED: Tone.QUIET,
    Phase.RUNNING: Tone.ACTIVE,
}


def phase_tone(phase: Phase) -> Tone:
    """Return the tone in which a phase is printed."""
    return _TONES.get(phase, Tone.PLAIN)


# --- quantities ---------------------------------------------------------------------------------


def format_size(count: int) -> str:
    """Return a number of bytes in the largest unit in which it is at least 1."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Return a number of seconds in its two largest units, as in 1h5m."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{whole % 60}s" if minutes else f"{whole}s"


def format_age(since: datetime | None, now: datetime) -> str:
    """Return how long ago ``since`` was; empty when it is None."""
    return format_duration((now - since).total_seconds()) if since else ""


def as_sentence(text: str) -> str:
    """Return a text that begins and ends as a sentence does; commands and keys stay as they are."""
    word = text.partition(" ")[0]
    is_name = not word.isalpha() or word in ("flash", "kubectl", "pip")
    return with_stop(text if is_name else text[:1].upper() + text[1:])


# --- one run ------------------------------------------------------------------------------------


def progress_line(status: FlashRunStatus) -> str:
    """Return one line with phase, step, metric and time left, or why the run waits."""
    parts: list[str] = [status.phase]
    if status.pending and status.phase not in TERMINAL:
        parts.append(status.pending.message.rstrip("."))
    elif status.phase is not Phase.RUNNING and (sentence := _sentence(status)):
        parts.append(sentence.rstrip("."))
    elif (progress := status.progress) is not None:
        parts += progress_parts(progress)
        if status.evaluation is not None and (last := status.evaluation.last):
            parts.append(f"held-out {status.evaluation.metric} {last.score}")
    return " · ".join(part for part in parts if part)


def progress_parts(progress: ProgressStatus) -> list[str]:
    """Return activity, step, metric and time left, as far as they are known."""
    parts = [progress.activity]
    if progress.total_steps:
        parts.append(f"step {progress.step}/{progress.total_steps} ({progress.percent}%)")
    parts += [f"{name} {value}" for name, value in _headline_metric(progress.metrics).items()]
    if progress.eta_seconds is not None:
        parts.append(f"{format_duration(progress.eta_seconds)} left")
    return [part for part in parts if part]


def _headline_metric(metrics: Mapping[str, str]) -> dict[str, str]:
    """Return the most important metric: the reward if there is one, otherwise the loss."""
    name = headline(metrics)
    return {name: metrics[name]} if name else {}


def summary(run: FlashRun, now: datetime) -> list[tuple[str, str]]:
    """Return the lines of ``flash status`` as pairs of a label and a text."""
    status = run.status
    rows = [
        ("Run", f"{run.namespace}/{run.name}"),
        ("Phase", status.phase),
        ("Model", f"{run.spec.model} ({run.spec.algorithm})"),
        ("Environment", run.spec.environment.id),
        *notice_rows(status),
        *_time_rows(run, now),
    ]
    if progress := status.progress:
        if status.phase in TERMINAL:
            progress = progress.replace(activity="", eta_seconds=None)
        if parts := progress_parts(progress):
            rows.append(("Progress", " · ".join(parts)))
    rows += _evaluation_rows(status)
    if status.resolved and status.resolved.pool:
        nodes = f" on {status.resolved.nodes} nodes" if status.resolved.nodes > 1 else ""
        rows.append(("GPU", f"{status.resolved.gpus} of pool {status.resolved.pool}{nodes}"))
    rows += [("Attempt", line) for line in attempt_lines(status)]
    if status.checkpoint_count:
        newest = f", newest {status.checkpoints[0].ref}" if status.checkpoints else ""
        rows.append(("Checkpoints", f"{status.checkpoint_count}{newest}"))
    if status.adapter:
        rows.append(("Adapter", f"{status.adapter.ref} ({format_size(status.adapter.bytes)})"))
    if status.storage:
        rows.append(("Storage", status.storage))
    return rows


def notice_rows(status: FlashRunStatus) -> list[tuple[str, str]]:
    """Return why a run waits or failed, and what else a person should know about it."""
    return [
        *_reason_rows(status),
        *_storage_rows(status),
        *_metrics_rows(status),
        *([("Score", fall)] if (fall := _fall(status)) else []),
    ]


def _reason_rows(status: FlashRunStatus) -> list[tuple[str, str]]:
    if status.failure:
        failure = status.failure
        hint = [("Hint", failure.hint)] if failure.hint else []
        peak = failure.peak_memory_bytes
        memory = [("Peak memory", format_size(peak))] if peak else []
        return [("Failure", f"{failure.message} ({failure.reason})"), *hint, *memory]
    if status.pending and status.phase not in TERMINAL:
        return [("Waiting", f"{status.pending.message} ({status.pending.reason})")]
    ready = status.condition(ConditionType.READY)
    if ready is not None and ready.reason is Reason.TRAINING_WARNING:
        return [("Warning", ready.message)]
    if ready is not None and ready.reason is Reason.DELETED:
        return [("Deletion", ready.message)]
    return [("Now", sentence)] if (sentence := _sentence(status)) else []


def _sentence(status: FlashRunStatus) -> str:
    """Return the sentence about a live run if it says more than its phase and its activity."""
    ready = status.condition(ConditionType.READY)
    if ready is None or status.phase in TERMINAL:
        return ""
    usual = isinstance(ready.reason, Reason) and ready.message == ready.reason.sentence
    works = status.progress is not None and status.progress.activity not in ("", status.phase)
    return "" if usual and (works or status.phase is Phase.RUNNING) else ready.message


def _storage_rows(status: FlashRunStatus) -> list[tuple[str, str]]:
    synced = status.condition(ConditionType.CHECKPOINTS_SYNCED)
    if synced is not None and synced.reason in (Reason.RECORD_REFUSED, Reason.TOO_MANY_FILES):
        return [("Ignored", f"{synced.message} ({synced.reason})")]
    return []


def _metrics_rows(status: FlashRunStatus) -> list[tuple[str, str]]:
    sent = status.condition(ConditionType.METRICS_SENT)
    if sent is not None and sent.status is ConditionStatus.FALSE:
        return [("W&B", f"off: {sent.message} ({sent.reason})")]
    return []


def _evaluation_rows(status: FlashRunStatus) -> list[tuple[str, str]]:
    evaluated = status.evaluation
    if evaluated is None:
        return []
    counts = f"{evaluated.examples} examples"
    if evaluated.unscored:
        counts += f", {evaluated.unscored} without a score"
    return [("Evaluation", f"{evaluated.metric} {evaluation_scores(evaluated)} ({counts})")]


def evaluation_scores(evaluated: EvaluationStatus) -> str:
    """Return the scores before training, of the newest and of the best checkpoint, in words."""
    points = (
        (evaluated.baseline, "before training"),
        (evaluated.last, "at step {}"),
        (evaluated.best, "at step {} (best)"),
    )
    parts = [
        f"{point.score} {where.format(point.step)}"
        for point, where in points
        if point is not None and not (point is evaluated.last and point.step == 0)
    ]
    if evaluated.last is not None and evaluated.last == evaluated.best:
        parts = parts[:-2] + parts[-1:]
    return ", ".join(parts)


def _fall(status: FlashRunStatus) -> str:
    """Return the sentence about a run that is worse than before training, or an empty string."""
    kept = status.condition(ConditionType.SCORE_KEPT)
    return kept.message if kept is not None and kept.status is ConditionStatus.FALSE else ""


def _time_rows(run: FlashRun, now: datetime) -> list[tuple[str, str]]:
    status = run.status
    rows = [("Created", f"{format_age(run.created, now)} ago")] if run.created else []
    if status.start_time:
        end = status.completion_time or now
        rows.append(("Duration", format_duration((end - status.start_time).total_seconds())))
    if status.gpu_seconds:
        rows.append(("GPU time", format_duration(status.gpu_seconds)))
    return rows


def attempt_lines(status: FlashRunStatus) -> list[str]:
    """Return one line per attempt; none for a single attempt that has not ended."""
    if len(status.attempts) < 2 and not any(attempt.reason for attempt in status.attempts):
        return []
    lines = []
    for attempt in status.attempts:
        steps = f", steps {attempt.from_step or 0} to {attempt.to_step}" if attempt.to_step else ""
        where = f" on {attempt.node}" if attempt.node else ""
        number = attempt.number or "set-up"  # a pod that failed before it claimed an attempt
        line = f"{number}: {attempt.reason or 'running'}{where}{steps}"
        lines.append(f"{line} ({attempt.message.rstrip('.')})" if attempt.message else line)
    return lines


def outcome(run: FlashRun) -> tuple[str, Tone]:
    """Return a sentence that says how a run ended, and its tone."""
    status = run.status
    match status.phase:
        case Phase.SUCCEEDED:
            done = f"{run.name} succeeded. Get the adapter: flash pull {run.name}"
            return (f"{done}. {fall}", Tone.PLAIN) if (fall := _fall(status)) else (done, Tone.GOOD)
        case Phase.CANCELLED:
            return f"{run.name} was cancelled; {what_is_kept(run)}", Tone.QUIET
        case Phase.FAILED:
            failure = status.failure
            parts = (failure.message, as_sentence(failure.hint)) if failure else ()
            why = with_stop(join_sentences(*parts))
            return f"{run.name} failed: {why}" if why else f"{run.name} failed.", Tone.BAD
        case _:
            return f"{run.name}: {progress_line(status)}", Tone.PLAIN


def what_is_kept(run: FlashRun) -> str:
    """Return what a run has saved, as the second half of a sentence."""
    count = run.status.checkpoint_count
    if run.status.adapter:
        return f"its adapter is kept: flash pull {run.name}"
    if not count:
        return "it had not saved anything yet"
    noun = "checkpoint is" if count == 1 else "checkpoints are"
    return f"its {count} {noun} kept: flash checkpoints {run.name}"


def checkpoint_lines(checkpoints: Iterable[CheckpointStatus]) -> list[str]:
    """Return ``step N RUN/step-N`` for each checkpoint, with its score if it was evaluated."""
    return [
        f"step {checkpoint.step} {checkpoint.ref}"
        + (f" score {checkpoint.score}" if checkpoint.score else "")
        for checkpoint in checkpoints
    ]


# --- tables -------------------------------------------------------------------------------------


def newest_first(runs: Iterable[FlashRun]) -> list[FlashRun]:
    """Return the runs in the order of their creation, the newest first."""
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(runs, key=lambda run: (run.created or oldest, run.name), reverse=True)


def best_first(runs: Iterable[FlashRun]) -> list[FlashRun]:
    """Return the runs in the order of the scores of their best checkpoints.

    Values of different metrics cannot be compared: runs that are judged by ``score`` come first,
    then those of other metrics, then those without an evaluation.
    """
    return sorted(newest_first(runs), key=_rank_of_score)


def _rank_of_score(run: FlashRun) -> tuple[int, str, float]:
    evaluated = run.status.evaluation
    if evaluated is None or evaluated.best is None:
        return 2, "", 0.0
    value = float(evaluated.best.score)
    group = 0 if evaluated.metric == evaluation.SCORE else 1
    better_low = evaluation.is_better(evaluated.metric, 0.0, 1.0)
    return group, evaluated.metric, value if better_low else -value


def runs_table(runs: Iterable[FlashRun], now: datetime) -> Table:
    """Return the runs in their order."""
    return Table(
        ("RUN", "PHASE", "STEP", "ALGORITHM", "MODEL", "POOL", "AGE", "SCORE"),
        tuple(
            (
                Cell(run.name),
                Cell(run.status.phase, phase_tone(run.status.phase)),
                Cell(step_text(run.status)),
                Cell(run.spec.algorithm),
                Cell(run.spec.model),
                Cell(run.status.resolved.pool if run.status.resolved else ""),
                Cell(format_age(run.created, now)),
                Cell(best_score(run.status.evaluation)),
            )
            for run in runs
        ),
        dispensable=("POOL", "MODEL", "ALGORITHM", "AGE", "STEP", "SCORE"),
    )


def best_score(evaluated: EvaluationStatus | None) -> str:
    """Return the score of the best checkpoint; a metric other than ``score`` is named."""
    if evaluated is None or evaluated.best is None:
        return ""
    name = "" if evaluated.metric == evaluation.SCORE else f"{evaluated.metric} "
    return f"{name}{evaluated.best.score}"


def step_text(status: FlashRunStatus) -> str:
    """Return how far a run is, such as ``20/100``; empty while that is not known."""
    progress = status.progress
    return f"{progress.step}/{progress.total_steps}" if progress and progress.total_steps else ""


def checkpoints_table(
    checkpoints: Iterable[CheckpointStatus], run: FlashRun, now: datetime
) -> Table:
    """Return the checkpoints of ``run`` with score, size and age."""
    listed, evaluated = tuple(checkpoints), run.status.evaluation
    table = Table(
        ("STEP", "REF", "SCORE", "SIZE", "AGE"),
        tuple(
            (
                Cell(str(checkpoint.step)),
                Cell(checkpoint.ref),
                _checkpoint_score(checkpoint, evaluated),
                Cell(format_size(checkpoint.bytes)),
                Cell(format_age(checkpoint.created_time, now)),
            )
            for checkpoint in listed
        ),
    )
    return table if evaluated is not None else table.without("SCORE")


def _checkpoint_score(checkpoint: CheckpointStatus, evaluated: EvaluationStatus | None) -> Cell:
    best = evaluated.best if evaluated is not None else None
    if best is not None and best.step == checkpoint.step:
        return Cell(f"{best.score} (best)", Tone.GOOD)
    return Cell(checkpoint.score or "")
