"""What follows a step from which nothing could be judged: another try, or the end of the attempt.

A judge that is away for a while costs no run. The same completions are scored again first, and
prompts of other steps later, because it may be a prompt that cannot be judged.
"""

from typing import Final, NamedTuple

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.pod.trainer_errors import TrainerError

FIRST_STEP_TRIES: Final = 5
"""So often the first step is tried: an environment that has never judged anything is wrong."""
SAME_PROMPTS_TRIES: Final = 3
"""After so many tries of the same prompts, others are tried."""
BUDGET_SECONDS: Final = 20 * 60
"""How long a later step is tried after its first failure, before the attempt ends."""
_PAUSES_SECONDS: Final = (2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""The pauses after the first tries; the last one is that of all further tries."""


class NothingJudgedError(Exception):
    """No completion of a step could be judged."""

    def __init__(self, sentence: str, *, episodes_failed: bool = False) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        """The first failure, with its row."""
        self.episodes_failed = episodes_failed
        """Whether an episode has failed while it was played, and has to be played again."""


class StepRetry(NamedTuple):
    """Another try of a step."""

    pause_seconds: float
    same_prompts: bool


def plan_retry(failure: NothingJudgedError, step: int, tries: int, seconds: float) -> StepRetry:
    """Return how step number ``step`` is tried again after ``tries`` tries without a judgement.

    ``seconds`` is the time since the first of them failed. Steps count from 1: all steps before
    this one were judged.

    Raises:
        TrainerError: this was the last try.
    """
    if step == 1 and tries >= FIRST_STEP_TRIES:
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.REWARD_FAILED,
            f"nothing of the first step could be judged in {tries} tries: {failure.sentence}",
            "correct how the environment scores and publish it again with flash env push",
        )
    if step > 1 and seconds >= BUDGET_SECONDS:
        raise TrainerError(
            Exit.TEMPORARY,
            Reason.JUDGE_UNAVAILABLE,
            f"nothing of step {step} could be judged for {seconds / 60:.0f} minutes: "
            f"{failure.sentence}",
            f"the run is retried from step {step - 1}; check the service that judges, its limits "
            "and its credentials",
        )
    pause = _PAUSES_SECONDS[min(tries, len(_PAUSES_SECONDS)) - 1]
    return StepRetry(pause, same_prompts=tries < SAME_PROMPTS_TRIES)


def retry_warning(failure: NothingJudgedError, step: int) -> str:
    """Return what status shows while a step is tried again."""
    limit = (
        f"in {FIRST_STEP_TRIES} tries"
        if step == 1
        else f"within {BUDGET_SECONDS / 60:.0f} minutes, and then the attempt ends"
    )
    return f"nothing of step {step} could be judged, {failure.sentence}; it is tried again {limit}"
