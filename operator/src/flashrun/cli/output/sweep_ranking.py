"""How the runs of a sweep rank, and what has become of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flashrun.api.reasons import NO_REASON, AnyReason, ConditionType, Phase, Reason
from flashrun.api.resource import FlashRun
from flashrun.cli.output import formatting
from flashrun.cli.output.tables import Cell, Table

_WITHOUT_WORD: Final = frozenset({Reason.TRAINED, Reason.TRAINING, Reason.ACCEPTED})
"""Reasons that say no more than the phase."""


def ranking_table(ranked: Sequence[FlashRun], settings: Sequence[Mapping[str, str]]) -> Table:
    """Return the runs in their order, with a column for each setting in which they differ."""
    keys = list(dict.fromkeys(key for own in settings for key in own))
    return Table(
        ("RUN", "PHASE", "STEP", "SCORE", *keys, "REASON"),
        tuple(
            (
                Cell(run.name),
                Cell(run.status.phase, formatting.phase_tone(run.status.phase)),
                Cell(formatting.step_text(run.status)),
                Cell(formatting.best_score(run.status.evaluation)),
                *(Cell(own.get(key, "")) for key in keys),
                Cell(_reason_word(run)),
            )
            for run, own in zip(ranked, settings, strict=True)
        ),
    )


def ranking_data(
    ranked: Sequence[FlashRun], settings: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the runs in their order for programs."""
    return [
        {
            "rank": rank,
            "name": run.name,
            "phase": str(run.status.phase),
            "reason": str(reason_of(run)),
            "step": run.status.progress.step if run.status.progress else None,
            "metric": run.status.evaluation.metric if run.status.evaluation else None,
            "best": run.status.evaluation.best.to_manifest()
            if run.status.evaluation and run.status.evaluation.best
            else None,
            "rungs": [rung.to_manifest() for rung in run.status.sweep.rungs]
            if run.status.sweep
            else [],
            "settings": dict(own),
        }
        for rank, (run, own) in enumerate(zip(ranked, settings, strict=True), 1)
    ]


def counts_text(runs: Sequence[FlashRun]) -> str:
    """Return how many runs do what, such as ``2 Running, 1 Succeeded``."""
    phases = [run.status.phase for run in runs]
    return ", ".join(f"{phases.count(phase)} {phase}" for phase in Phase if phase in phases)


def reason_of(run: FlashRun) -> AnyReason:
    """Return why a run waits or has ended as it has, in one word."""
    ready = run.status.condition(ConditionType.READY)
    if run.status.failure is not None:
        return run.status.failure.reason
    return ready.reason if ready is not None else NO_REASON


def _reason_word(run: FlashRun) -> str:
    reason = reason_of(run)
    return "" if reason in _WITHOUT_WORD else str(reason)
