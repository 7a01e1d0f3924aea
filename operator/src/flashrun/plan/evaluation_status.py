"""``status.evaluation``: how good the model is on held-out examples, and whether it got worse."""

from collections.abc import Iterator
from typing import Final

from flashrun.api import evaluation
from flashrun.api.reasons import ConditionType, Reason
from flashrun.api.records import Evaluation, EvaluationPoint
from flashrun.api.resource import EvaluationPointStatus, EvaluationStatus, FlashRun
from flashrun.plan.conditions import FALSE, TRUE, DesiredCondition
from flashrun.plan.types import StorageView

_LONGEST_METRIC: Final = 64


def evaluation_status(
    before: EvaluationStatus | None, storage: StorageView
) -> EvaluationStatus | None:
    """Return what the trainer has reported, now or earlier."""
    reported = _reported(storage)
    if reported is None:
        return before
    return EvaluationStatus(
        metric=reported.metric[:_LONGEST_METRIC],
        baseline=_point(reported.baseline),
        last=_point(reported.last),
        best=_point(reported.best),
        examples=reported.examples,
        unscored=reported.unscored,
    )


def evaluation_conditions(run: FlashRun, storage: StorageView) -> Iterator[DesiredCondition]:
    """Yield ScoreKept, once the run was evaluated before and after a step."""
    reported = _reported(storage)
    if reported is None or reported.baseline is None or reported.last is None:
        return
    if reported.last.step == 0:
        return
    if sentence := describe_fall(run.name, reported):
        yield DesiredCondition(ConditionType.SCORE_KEPT, FALSE, Reason.SCORE_FELL, sentence)
    else:
        yield DesiredCondition(ConditionType.SCORE_KEPT, TRUE, Reason.SCORE_HELD)


def describe_fall(name: str, reported: Evaluation) -> str:
    """Return a sentence if the run ``name`` is worse than before training, else an empty string."""
    metric, before, last, best = (
        reported.metric,
        reported.baseline,
        reported.last,
        reported.best,
    )
    assert before is not None
    assert last is not None
    same = score_text(before.score) == score_text(last.score)
    if same or not evaluation.is_better(metric, before.score, last.score):
        return ""
    verb = "rose" if metric == evaluation.LOSS else "fell"
    subject = "score" if metric == evaluation.SCORE else f"metric {metric}"
    change = (
        f"The {subject} on held-out examples {verb} from {score_text(before.score)} before "
        f"training to {score_text(last.score)} at step {last.step}"
    )
    if best is None or not evaluation.is_better(metric, best.score, before.score):
        return f"{change}, and no checkpoint is better than before training."
    return (
        f"{change}; the best checkpoint is step-{best.step} with {score_text(best.score)}: "
        f"flash pull {name} --best."
    )


def score_text(score: float) -> str:
    """Return a score as status shows it."""
    return f"{score:.4g}"


def _reported(storage: StorageView) -> Evaluation | None:
    """Return the evaluation of the result, else of the heartbeat."""
    records = (storage.result, storage.heartbeat)
    return next((item.evaluation for item in records if item and item.evaluation), None)


def _point(point: EvaluationPoint | None) -> EvaluationPointStatus | None:
    if point is None:
        return None
    return EvaluationPointStatus(step=point.step, score=score_text(point.score))
