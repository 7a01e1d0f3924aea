"""What follows a step that could not be judged: how often, with what, and how it ends."""

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.data.retries import (
    BUDGET_SECONDS,
    FIRST_STEP_TRIES,
    NothingJudgedError,
    StepRetry,
    plan_retry,
    retry_warning,
)
from flashrun_trainer.pod.trainer_errors import TrainerError

AWAY = NothingJudgedError("in row 3: ConnectionError: 503")


def test_pauses_grow_and_other_prompts_follow_the_same_ones():
    assert [plan_retry(AWAY, 9, tries, 0) for tries in range(1, 9)] == [
        StepRetry(2, True),
        StepRetry(4, True),
        StepRetry(8, False),
        StepRetry(15, False),
        StepRetry(30, False),
        StepRetry(60, False),
        StepRetry(60, False),
        StepRetry(60, False),
    ]


def test_a_first_step_that_is_never_judged_ends_the_run_after_a_few_tries():
    for tries in range(1, FIRST_STEP_TRIES):
        plan_retry(AWAY, 1, tries, seconds=1e6)
    with pytest.raises(TrainerError, match=r"in 5 tries: in row 3: ConnectionError: 503") as error:
        plan_retry(AWAY, 1, FIRST_STEP_TRIES, seconds=0)
    assert (error.value.code, error.value.reason) == (Exit.ENVIRONMENT, "RewardFailed")


def test_a_later_step_ends_the_attempt_when_its_minutes_are_over():
    plan_retry(AWAY, 2, 1000, BUDGET_SECONDS - 1)
    with pytest.raises(TrainerError, match=r"step 7 .* 20 minutes: in row 3: .* 503") as error:
        plan_retry(AWAY, 7, 2, BUDGET_SECONDS)
    assert (error.value.code, error.value.reason) == (Exit.TEMPORARY, "JudgeUnavailable")
    assert "from step 6" in error.value.hint


def test_status_shows_the_judges_own_sentence_and_what_happens_next():
    assert retry_warning(AWAY, 4) == (
        "nothing of step 4 could be judged, in row 3: ConnectionError: 503; it is tried again "
        "within 20 minutes, and then the attempt ends"
    )
    assert "in 5 tries" in retry_warning(AWAY, 1)
