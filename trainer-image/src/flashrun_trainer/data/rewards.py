"""Scores of one step's responses: what the environment says, and what it said nothing about.

A reward that fails for some responses costs those responses their score, and is counted. One that
fails for all of them ends the run: there is nothing to learn from it.
"""

import inspect
import math
import statistics
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from numbers import Real
from typing import Any, Final, TypeVar

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.data.environment import FAILURES, Environment, shown
from flashrun_trainer.pod.trainer_errors import TrainerError, sentence

Response = TypeVar("Response")

_LARGEST: Final = 3e38
"""TRL computes rewards in float32, where more than this is infinite."""
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
    """Say whether the environment scores all responses to one example together."""
    from freesolo.environments import Environment as Base

    hook = "score_episodes" if environment.is_multi_turn else "score_responses"
    return getattr(type(environment.sdk), hook) is not getattr(Base, hook)


def of_responses(
    environment: Environment, examples: Sequence[Any], responses: Sequence[Any]
) -> list[Score]:
    """Score answers, or the episodes of an environment of several turns.

    ``examples[i]`` is what ``responses[i]`` is about. What has a score already, because it failed
    on its way, keeps it.
    """
    pairs = list(zip(examples, responses, strict=True))
    if compares(environment):
        return _in_groups(environment, pairs)

    def score(pair: tuple[Any, Any]) -> Score:
        example, response = pair
        if isinstance(response, Score):
            return response
        if environment.is_multi_turn:
            return _score(environment.sdk.score_episode(example, response))
        text = environment.sdk.normalize_response_text(example, response)
        return _score(environment.sdk.score_response(example, text))

    return environment.map(_counted(score), pairs)


def _in_groups(environment: Environment, pairs: list[tuple[Any, Any]]) -> list[Score]:
    """Score all responses to one example together, for an environment that compares them."""
    sdk = environment.sdk
    hook = sdk.score_episodes if environment.is_multi_turn else sdk.score_responses
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: id(pair[0]))]

    def score(group: list[tuple[Any, Any]]) -> list[Score]:
        compared = [response for _, response in group if not isinstance(response, Score)]
        found = iter(together(group[0][0], compared) if compared else ())
        return [given if isinstance(given, Score) else next(found) for _, given in group]

    def together(example: Any, responses: list[Any]) -> list[Score]:
        try:
            results = list(hook(example, responses))
            if len(results) != len(responses):
                raise ValueError(f"{len(results)} scores for {len(responses)} responses")
        except FAILURES as error:
            return [failed(error)] * len(responses)
        return list(map(_counted(_score), results))

    return [found for scores in environment.map(score, groups) for found in scores]


def _counted(score: Callable[[Response], Score]) -> Callable[[Response], Score]:
    def attempt(response: Response) -> Score:
        try:
            return score(response)
        except FAILURES as error:
            return failed(error)

    return attempt


def failed(error: BaseException) -> Score:
    """Return what a response is worth when its environment has raised ``error``."""
    return Score(error=sentence(error), trace="".join(traceback.format_exception(error)))


def _score(result: Any) -> Score:
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("a score is asked for without await: it must not be async")
    if not hasattr(result, "score"):
        raise TypeError(f"a score is a RewardResult, not {shown(result)}")
    reward = float(result.score)
    if not abs(reward) <= _LARGEST:
        raise ValueError(f"the score is {reward}, which is not a number to learn from")
    return Score(reward, dict(_metrics(getattr(result, "metrics", ()))))


def _metrics(metrics: Any) -> Iterator[tuple[str, float]]:
    """Yield what can be averaged; a metric that cannot be read costs nobody a score."""
    if isinstance(metrics, Mapping):
        named: Iterable[tuple[Any, Any]] = metrics.items()
    elif isinstance(metrics, Iterable):
        named = ((getattr(metric, "name", None), metric) for metric in metrics)
    else:
        return
    for name, metric in named:
        if name and (value := _value(metric)) is not None:
            yield str(name), value


def _value(metric: Any) -> float | None:
    candidates = (metric, *(getattr(metric, part, None) for part in ("score", "value", "success")))
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
            Reason.REWARD_FAILED,
            f"the reward failed for all {len(scores)} responses of step {step} with "
            f"{scores[0].error}",
            "correct how the environment scores and publish it again with flash env push",
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
        begun = f"nothing was learned from the last {WASTED_STEPS} steps or more"
        if cut_at is not None:
            return (
                f"{begun}, now because max_tokens = {cut_at} has cut off all completions, and "
                "what is cut off is not learned from: raise train.max_tokens, or set "
                "train.stop_sequences"
            )
        return (
            f"{begun}, now because all completions of a prompt had the same reward: make the "
            "score tell better from worse"
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
