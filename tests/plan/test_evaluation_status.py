"""``status.evaluation``, and the sentence about a run that got worse."""

import pytest

from flashrun.api.reasons import ConditionType, Reason
from flashrun.api.records import CheckpointEvaluation
from flashrun.api.resource import EvaluationPointStatus, FlashRunStatus
from flashrun.plan.evaluation_status import describe_fall
from tests.plan import worlds
from tests.plan.worlds import World, evaluation, running


def status_of(world: World) -> FlashRunStatus:
    return world.decide().status


def reporting(scores: dict[int, float], metric: str = "score") -> World:
    """A run whose trainer has reported these scores."""
    return running(heartbeat=worlds.heartbeat(20, evaluation=evaluation(scores, metric)))


def test_a_run_that_was_not_evaluated_has_no_evaluation() -> None:
    status = status_of(running(heartbeat=worlds.heartbeat(20)))

    assert status.evaluation is None
    assert status.condition(ConditionType.SCORE_KEPT) is None


def test_scores_have_four_digits() -> None:
    found = status_of(reporting({0: 1 / 3, 10: 2 / 3})).evaluation

    assert found is not None
    assert found.baseline == EvaluationPointStatus(step=0, score="0.3333")
    assert found.last == found.best == EvaluationPointStatus(step=10, score="0.6667")


def test_before_the_first_save_only_the_baseline_is_known() -> None:
    status = status_of(reporting({0: 0.25}))

    assert status.evaluation is not None
    assert status.evaluation.best is None
    assert status.condition(ConditionType.SCORE_KEPT) is None


def test_what_an_earlier_attempt_has_reported_stays_until_the_next_one_reports() -> None:
    world = reporting({0: 0.25, 10: 0.5}).settled()
    silent = world.stored(heartbeat=worlds.heartbeat(10, attempt=2))
    gone = world.stored(heartbeat=None)

    assert status_of(silent).evaluation == status_of(gone).evaluation == status_of(world).evaluation


def test_the_result_counts_more_than_a_heartbeat_from_before() -> None:
    final = worlds.result(evaluation=evaluation({0: 0.1, 20: 0.2, 40: 0.3}))
    found = status_of(reporting({0: 0.1, 20: 0.2}).stored(result=final)).evaluation

    assert found is not None
    assert found.last == EvaluationPointStatus(step=40, score="0.3")


def test_a_checkpoint_has_its_score() -> None:
    scored = worlds.checkpoint(20, evaluation=CheckpointEvaluation(metric="score", score=0.40625))
    found = status_of(running(checkpoints=(worlds.checkpoint(10), scored))).checkpoints

    assert [item.score for item in found] == ["0.4062", None]


FALLS = [
    ("better", "score", {0: 0.3, 20: 0.4}, ""),
    ("equal", "score", {0: 0.3, 20: 0.3}, ""),
    ("equal as it is shown", "score", {0: 0.300001, 20: 0.3}, ""),
    ("a smaller loss", "loss", {0: 1.5, 20: 1.2}, ""),
    ("worse, and never better", "score", {0: 0.42, 20: 0.4, 40: 0.31},
     "The score on held-out examples fell from 0.42 before training to 0.31 at step 40, and no "
     "checkpoint is better than before training."),
    ("worse than it had been", "exact", {0: 0.42, 20: 0.5, 40: 0.31},
     "The metric exact on held-out examples fell from 0.42 before training to 0.31 at step 40; the "
     "best checkpoint is step-20 with 0.5: flash pull flash-1-a --best."),
    ("a larger loss", "loss", {0: 1.5, 20: 1.25, 40: 1.75},
     "The metric loss on held-out examples rose from 1.5 before training to 1.75 at step 40; the "
     "best checkpoint is step-20 with 1.25: flash pull flash-1-a --best."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "scores", "sentence"), [row[1:] for row in FALLS], ids=[row[0] for row in FALLS]
)
def test_a_run_that_got_worse_says_so(metric: str, scores: dict[int, float], sentence: str) -> None:
    condition = status_of(reporting(scores, metric)).condition(ConditionType.SCORE_KEPT)

    assert describe_fall("flash-1-a", evaluation(scores, metric)) == sentence
    assert condition is not None
    assert condition.reason is (Reason.SCORE_FELL if sentence else Reason.SCORE_HELD)


def test_a_run_that_recovers_says_so() -> None:
    worse = reporting({0: 0.4, 10: 0.3}).settled()
    heartbeat = worlds.heartbeat(20, evaluation=evaluation({0: 0.4, 10: 0.3, 20: 0.5}))
    condition = status_of(worse.stored(heartbeat=heartbeat)).condition(ConditionType.SCORE_KEPT)

    assert condition is not None
    assert (condition.status, condition.message) == ("True", "")
