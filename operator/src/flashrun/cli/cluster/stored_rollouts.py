"""What a run has sampled: the rollouts of a step in storage, and the best and worst of them."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final, NamedTuple

from flashrun.api import names
from flashrun.api.config import Algorithm
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.output.failure import NotFoundFailure, UsageFailure
from flashrun.store_errors import KeyNotFound

Rollout = Mapping[str, Any]
"""A row of a file of rollouts: prompt, completion, score and its parts."""

_LARGEST_FILE: Final = 256 * 1024 * 1024
_SCORES: Final = ("score", "reward")
"""Values of a rollout that stand beside its metrics."""


class StepRollouts(NamedTuple):
    """The rollouts of one step that are stored, in the order in which they were sampled."""

    step: int
    rows: list[Rollout]


async def read_rollouts(
    session: ClusterSession, run: FlashRun, step: int | None, *, evaluated: bool
) -> StepRollouts:
    """Return the rollouts of a step, by default the newest; ``evaluated`` are an evaluation's.

    Raises:
        NotFoundFailure: there are none.
    """
    if step is None:
        step = max(await list_steps(session, run, evaluated=evaluated), default=None)
        if step is None:
            raise _no_rollouts(run, evaluated)
    build_key = names.eval_rollouts_key if evaluated else names.rollouts_key
    key = build_key(run.storage_prefix, step)
    try:
        data = await session.with_store(lambda store: store.get_bytes(key, limit=_LARGEST_FILE))
    except KeyNotFound:
        raise _no_step(
            run, step, await list_steps(session, run, evaluated=evaluated), evaluated
        ) from None
    return StepRollouts(step, parse_rollouts(data))


def parse_rollouts(data: bytes) -> list[Rollout]:
    """Return the rows of a file of rollouts; a line that is not one is left out."""
    rows: list[Rollout] = []
    for line in data.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def order_rollouts(
    found: StepRollouts, metric: str, *, worst: int | None, best: int | None
) -> list[Rollout]:
    """Return the ``worst`` or the ``best`` rollouts by a metric, beginning with the most extreme.

    A rollout without a value is not among them. Without a number, all are returned as they were
    sampled.

    Raises:
        UsageFailure: no rollout has the metric.
    """
    count = worst or best
    if count is None:
        return found.rows
    valued = [
        (value, row) for row in found.rows if (value := rollout_value(row, metric)) is not None
    ]
    if found.rows and not valued:
        known = ", ".join(_known_metrics(found.rows)) or "none"
        raise UsageFailure(
            f"no rollout of step {found.step} has a value of {metric!r}",
            f"choose one with --metric: {known}",
        )
    valued.sort(key=lambda pair: pair[0], reverse=worst is None)
    return [row for _, row in valued[:count]]


def rollout_value(row: Rollout, metric: str) -> float | None:
    """Return the value of a metric of one rollout; None if it has no such number."""
    metrics = row.get("metrics")
    table = row if metric in _SCORES else metrics if isinstance(metrics, dict) else {}
    value = table.get(metric)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)


def _known_metrics(rows: Sequence[Rollout]) -> list[str]:
    """Return the metrics of which some rollout has a value."""
    candidates = dict.fromkeys(_SCORES)
    for row in rows:
        metrics = row.get("metrics")
        candidates |= dict.fromkeys(metrics if isinstance(metrics, dict) else ())
    return [
        name for name in candidates if any(rollout_value(row, name) is not None for row in rows)
    ]


async def list_steps(session: ClusterSession, run: FlashRun, *, evaluated: bool) -> list[int]:
    """Return the steps that have rollouts, in ascending order; see ``read_rollouts``."""
    folder = names.rollouts_prefix(run.storage_prefix)
    entries = await session.with_store(lambda store: list(store.list(folder)))
    keys = (names.parse_rollouts_key(run.storage_prefix, entry.key) for entry in entries)
    return sorted(key.step for key in keys if key and key.evaluated is evaluated)


def _no_rollouts(run: FlashRun, evaluated: bool) -> NotFoundFailure:
    if evaluated:
        return NotFoundFailure(
            f"{run.name} has no answers of an evaluation",
            "it is evaluated if its environment has dataset/eval.jsonl, or [eval] names a split",
        )
    if run.spec.algorithm is Algorithm.SFT:
        return NotFoundFailure(
            f"{run.name} trains by SFT, which samples no rollouts",
            "--eval shows the answers of its evaluations",
        )
    return NotFoundFailure(
        f"{run.name} has no rollouts yet", f"flash status {run.name} shows what it does"
    )


def _no_step(run: FlashRun, step: int, steps: Sequence[int], evaluated: bool) -> NotFoundFailure:
    if not steps:
        return _no_rollouts(run, evaluated)
    nearest = min(steps, key=lambda known: (abs(known - step), known))
    return NotFoundFailure(
        f"{run.name} has no {'evaluation after' if evaluated else 'rollouts of'} step {step}",
        f"there are {len(steps):,}, from step {steps[0]} to {steps[-1]}; the nearest is {nearest}",
    )
