"""Scores of one step's responses: what the environment says, and what it said nothing about.

A reward that fails for some responses costs those responses their score, and is counted. One that
fails for all of them ends the run: there is nothing to learn from it.
"""

import math
import statistics
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from numbers import Real
from typing import Any, Final, TypeVar

from flashrun.spec.outcome import Exit
from flashrun_trainer.environment import Answer, Environment
from flashrun_trainer.failures import TrainerError, sentence

Response = TypeVar("Response")

WASTED_STEPS: Final = 5
"""Steps without anything to learn after which a warning is shown."""


@dataclass(frozen=True)
class Score:
    """What one response is worth."""

    reward: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""
    """Type and message of what the environment raised; empty when it gave a score."""
    trace: str = ""
    """The traceback to it."""


def compares(environment: Environment) -> bool:
    """Say whether the environment scores all answers to one example together."""
    from freesolo.environments import Environment as Base

    return type(environment.sdk).score_responses is not Base.score_responses


def of_answers(
    environment: Environment, examples: Sequence[Any], answers: Sequence[Answer]
) -> list[Score]:
    """Score single answers; ``examples[i]`` is what ``answers[i]`` answers."""
    pairs = list(zip(examples, answers, strict=True))
    if compares(environment):
        return _in_groups(environment, pairs)

    def score(pair: tuple[Any, Answer]) -> Score:
        example, answer = pair
        text = environment.sdk.normalize_response_text(example, answer)
        return _score(environment.sdk.score_response(example, text))

    return environment.map(_counted(score), pairs)


def _in_groups(environment: Environment, pairs: list[tuple[Any, Answer]]) -> list[Score]:
    """Score all answers to one example together, for an environment that compares them."""
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: id(pair[0]))]

    def score(group: list[tuple[Any, Answer]]) -> list[Score]:
        try:
            texts = [answer for _, answer in group]
            results = environment.sdk.score_responses(group[0][0], texts)
            return [_score(result) for _, result in zip(group, results, strict=True)]
        except Exception as error:
            return [_failed(error)] * len(group)

    return [found for scores in environment.map(score, groups) for found in scores]


def of_episodes(
    environment: Environment, examples: Sequence[Any], episodes: Sequence[Any]
) -> list[Score]:
    """Score whole episodes; one that failed on the way is an exception in place of an episode."""

    def score(pair: tuple[Any, Any]) -> Score:
        example, episode = pair
        if isinstance(episode, Exception):
            raise episode
        return _score(environment.sdk.score_episode(example, episode))

    return environment.map(_counted(score), list(zip(examples, episodes, strict=True)))


def _counted(score: Callable[[Response], Score]) -> Callable[[Response], Score]:
    def attempt(response: Response) -> Score:
        try:
            return score(response)
        except Exception as error:
            return _failed(error)

    return attempt


def _failed(error: Exception) -> Score:
    return Score(error=sentence(error), trace="".join(traceback.format_exception(error)))


def _score(result: Any) -> Score:
    reward = float(result.score)
    if not math.isfinite(reward):
        raise ValueError(f"the score is {reward}, which is not a number to learn from")
    named = ((metric.name, _value(metric)) for metric in result.metrics)
    return Score(reward, {name: value for name, value in named if value is not None})


def _value(metric: Any) -> float | None:
    candidates = (metric.score, metric.value, metric.success)
    numbers = (float(item) for item in candidates if isinstance(item, Real))
    return next((number for number in numbers if math.isfinite(number)), None)


def first_trace(scores: Iterable[Score]) -> str:
    """Return the traceback of the first response without a score, or an empty string."""
    return next((score.trace for score in scores if score.error), "")


def refuse_if_all_failed(scores: Sequence[Score], step: int) -> None:
    """Raise ``TrainerError`` when not one response of a step has a score."""
    if all(score.error for score in scores):
        raise TrainerError(
            Exit.ENVIRONMENT,
            "RewardFailed",
            f"the reward failed for all {len(scores)} responses of step {step} with "
            f"{scores[0].error}",
            "correct score_response of the environment and publish it again with flash env push",
        )


class Waste:
    """Counts steps in a row from which nothing could be learned."""

    def __init__(self) -> None:
        self._steps = 0

    def after(self, rewards: Sequence[float], group_size: int, cut_at: int | None) -> str:
        """Take a step, and return a sentence when it has been like this for a while, and why.

        ``cut_at`` is the limit that has cut off all completions, None when it has not.
        """
        begins = range(0, len(rewards), group_size)
        flat = all(len(set(rewards[begin : begin + group_size])) == 1 for begin in begins)
        self._steps = self._steps + 1 if flat or cut_at is not None else 0
        if self._steps < WASTED_STEPS:
            return ""
        if cut_at is not None:
            return (
                f"max_tokens = {cut_at} has cut off all completions for {WASTED_STEPS} steps or "
                "more, and what is cut off is not learned from: raise train.max_tokens, or set "
                "train.stop_sequences"
            )
        return (
            f"all completions of a prompt have had the same reward for {WASTED_STEPS} steps or "
            "more, so nothing is learned: make score_response tell better from worse"
        )


def warning(scores: Sequence[Score], step: int) -> str:
    """Return a sentence about the responses that could not be scored, or an empty string."""
    errors = [score.error for score in scores if score.error]
    if not errors:
        return ""
    return (
        f"the reward failed for {len(errors)} of {len(scores)} responses of step {step}, which "
        f"count as 0: {errors[0]}"
    )


def means(scores: Iterable[Score]) -> dict[str, float]:
    """Return the mean of every metric of the environment, as ``env/<name>``."""
    values: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        for name, value in score.metrics.items():
            values[f"env/{name}"].append(value)
        values["reward_errors"].append(float(bool(score.error)))
    return {name: statistics.fmean(found) for name, found in values.items()}
