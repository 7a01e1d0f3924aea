"""The best checkpoint of a run, found in storage: also of a run that was deleted."""

from collections.abc import Mapping
from typing import NamedTuple

from flashrun.api import evaluation, names
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster import deleted_runs
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.cluster.metrics_history import judged_metric, read_history, scores_by_step
from flashrun.cli.output.failure import NotFoundFailure
from flashrun.plan.evaluation_status import score_text
from flashrun.plan.resolve import resolve_eval, resolve_train


class BestCheckpoint(NamedTuple):
    """A checkpoint, and why it is the best one."""

    ref: names.Ref
    metric: str
    score: float
    baseline: float | None
    """The score before training, if it is known."""
    evaluated: int
    """Checkpoints among which it is the best one."""

    @property
    def sentence(self) -> str:
        """The checkpoint with its score, in one sentence for people."""
        before = (
            f", before training {score_text(self.baseline)}" if self.baseline is not None else ""
        )
        noun = "checkpoint" if self.evaluated == 1 else "checkpoints"
        text = (
            f"{self.ref} is the best of {self.evaluated} evaluated {noun}: {self.metric} "
            f"{score_text(self.score)}{before}"
        )
        worse = self.baseline is not None and not evaluation.is_better(
            self.metric, self.score, self.baseline
        )
        return f"{text}; no checkpoint is better than before training" if worse else text


async def find_best(session: ClusterSession, name: str) -> BestCheckpoint:
    """Return the best checkpoint of a run by its evaluations.

    Raises:
        NotFoundFailure: the run does not exist or was not evaluated, or its best checkpoint is not
            in storage.
    """
    run = await deleted_runs.find_run(session, name)
    rows = await read_history(session, run)
    metric = judged_metric(run, rows)
    attempts = names.attempts_prefix(run.storage_prefix)
    entries = await session.with_store(lambda store: list(store.list(attempts)))
    keys = (names.parse_step_key(run.storage_prefix, entry.key) for entry in entries)
    committed = {key.step for key in keys if key and key.path == names.MANIFEST}
    return choose_best(run, metric, scores_by_step(rows, metric), committed)


def choose_best(
    run: FlashRun, metric: str, scores: Mapping[int, float], committed: set[int]
) -> BestCheckpoint:
    """Return the best of the evaluated steps, which has to be committed; see ``find_best``."""
    after_steps = {step: score for step, score in scores.items() if step}
    best = evaluation.best_step(metric, after_steps)
    if best is None:
        raise NotFoundFailure(f"no checkpoint of {run.name} was evaluated", _why_none(run, scores))
    left = {step: score for step, score in after_steps.items() if step in committed}
    if best not in committed:
        second = evaluation.best_step(metric, left)
        hint = (
            f"flash checkpoints {run.name} lists what is left"
            if second is None
            else f"the best one that is left has {metric} {score_text(left[second])}: flash pull "
            f"{names.checkpoint_ref(run.name, second)}"
        )
        raise NotFoundFailure(
            f"the best checkpoint of {run.name} is step-{best} with {metric} "
            f"{score_text(after_steps[best])}, and it is not in storage: it was deleted, or is "
            "still being uploaded",
            hint,
        )
    return BestCheckpoint(
        names.Ref(run.name, best), metric, after_steps[best], scores.get(0), len(left)
    )


def _why_none(run: FlashRun, scores: Mapping[int, float]) -> str:
    """Return what to do about a run without evaluated checkpoints."""
    if 0 in scores:
        return (
            f"it was evaluated before training only; flash checkpoints {run.name} lists its saves"
        )
    if resolve_eval(run.spec, resolve_train(run.spec)) is None:
        return "its config turns evaluation off, or trains on the split eval: see [eval]"
    return "add dataset/eval.jsonl to its environment, or name a split in [eval]"
