"""Scores of one step's responses, from the environment, and what happens when it gives none.

A response that could not be scored is not learned, does not count in the mean of its group, and is
counted by kind. A step of which no response could be scored is tried again.
"""

import inspect
import math
import statistics
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from flashrun_trainer.data.advantages import Outcome, is_flat, split_groups
from flashrun_trainer.data.calls import CallTimeoutError
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.messages import short_repr
from flashrun_trainer.data.retries import NothingJudgedError
from flashrun_trainer.pod.trainer_errors import TrainerError, format_error, valid_text

_LARGEST_SCORE: Final = 3e38
"""TRL computes rewards in float32, where larger numbers are infinite."""
WASTED_STEPS: Final = 5
"""After so many steps in a row without anything to learn, a warning is shown."""


class FailureKind(StrEnum):
    """Why a response has no score."""

    RAISED = "raised"
    """The scoring method has raised an exception."""
    INVALID = "invalid"
    """The scoring method returned something that is not a finite score."""
    REPORTED = "reported"
    """The scoring method returned a ``RewardResult`` with ``error``."""
    TIMED_OUT = "timed_out"
    """The scoring method did not return in time."""
    EPISODE = "episode"
    """The episode itself has failed: its opening or one of its replies."""


@dataclass(frozen=True)
class Score:
    """The environment's score of one response."""

    reward: float = 0.0
    """Without a meaning when there is an ``error``."""
    metrics: dict[str, float] = field(default_factory=dict)
    dropped_metrics: dict[str, str] = field(default_factory=dict, compare=False)
    """Metrics that are not finite numbers, by name, as they are printed."""
    error: str = ""
    """Why there is no score, in a sentence; empty when there is one."""
    kind: FailureKind = FailureKind.RAISED
    """The kind of the error."""
    trace: str = ""
    """The traceback of the error."""
    success: bool = field(default=False, compare=False)
    """Whether the response counts as right, for pass@k."""


def scores_groups(environment: Environment) -> bool:
    """Return whether the environment scores all responses to one example in one call."""
    from freesolo.environments import Environment as Base

    hook = "score_episodes" if environment.is_multi_turn else "score_responses"
    return getattr(type(environment.sdk), hook) is not getattr(Base, hook)


def score_responses(
    environment: Environment, examples: Sequence[Any], responses: Sequence[Any]
) -> list[Score]:
    """Score answers, or episodes in an environment of several turns.

    ``responses[i]`` is a response to ``examples[i]``. A response that is a ``Score`` already,
    because its episode has failed, keeps it.
    """
    pairs = list(zip(examples, responses, strict=True))
    if scores_groups(environment):
        return _score_in_groups(environment, pairs)

    def score(pair: tuple[Any, Any]) -> Score:
        example, response = pair
        if isinstance(response, Score):
            return response
        if environment.is_multi_turn:
            return _parse_result(environment.sdk.score_episode(example, response))
        text = environment.sdk.normalize_response_text(example, response)
        return _parse_result(environment.sdk.score_response(example, text))

    return [_score_or_failure(score) for score in environment.map(score, pairs)]


def _score_in_groups(environment: Environment, pairs: list[tuple[Any, Any]]) -> list[Score]:
    """Score all responses to one example in one call; consecutive pairs form a group."""
    sdk = environment.sdk
    hook = sdk.score_episodes if environment.is_multi_turn else sdk.score_responses
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: id(pair[0]))]

    def score_group(group: list[tuple[Any, Any]]) -> list[Score]:
        unscored = [response for _, response in group if not isinstance(response, Score)]
        results = list(hook(group[0][0], unscored)) if unscored else []
        if len(results) != len(unscored):
            mismatch = ValueError(f"{len(results)} scores for {len(unscored)} responses")
            return [failed_score(mismatch, FailureKind.INVALID)] * len(unscored)
        return list(map(_parse_result, results))

    scores: list[Score] = []
    for group, result in zip(groups, environment.map(score_group, groups), strict=True):
        unscored = sum(not isinstance(response, Score) for _, response in group)
        own = iter(
            [failed_score(result)] * unscored if isinstance(result, BaseException) else result
        )
        scores += [item if isinstance(item, Score) else next(own) for _, item in group]
    return scores


def _score_or_failure(result: Score | BaseException) -> Score:
    return failed_score(result) if isinstance(result, BaseException) else result


def failed_score(error: BaseException, kind: FailureKind = FailureKind.RAISED) -> Score:
    """Return the score of a response whose scoring, or whose episode, has raised ``error``."""
    if isinstance(error, CallTimeoutError):
        kind = FailureKind.TIMED_OUT if kind is FailureKind.RAISED else kind
        return Score(error=str(error), kind=kind, trace=error.stack)
    trace = "".join(traceback.format_exception(error))
    text = error.message if isinstance(error, TrainerError) else format_error(error)
    return Score(error=text, kind=kind, trace=trace)


def _parse_result(result: Any) -> Score:
    """Return the score in what a scoring method returned; a failed one if it has none."""
    try:
        return _read_score(result)
    except Exception as error:
        return failed_score(error, FailureKind.INVALID)


def _read_score(result: Any) -> Score:
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("the scoring method must not be async: it is called without await")
    if not hasattr(result, "score"):
        raise TypeError(f"a score must be a RewardResult, not {short_repr(result)}")
    if error := getattr(result, "error", None):
        text = f"the environment returned a RewardResult with the error {short_repr(error)}"
        return Score(error=text, kind=FailureKind.REPORTED)
    reward = float(result.score)
    if not abs(reward) <= _LARGEST_SCORE:
        raise ValueError(f"the score is {reward}, which is not finite in float32")
    numbers, dropped = _read_metrics(getattr(result, "metrics", ()))
    return Score(reward, numbers, dropped, success=_is_success(result, reward))


def _is_success(result: Any, reward: float) -> bool:
    """Return whether a score is a success, as the SDK's ``resolved_success`` decides it."""
    success, threshold = getattr(result, "success", None), getattr(result, "threshold", None)
    if success is not None:
        return bool(success)
    return reward > 0 if threshold is None else reward >= threshold


def _read_metrics(metrics: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Return the metrics that are finite numbers, and the others as text; none fails the score."""
    try:
        return _sort_metrics(metrics)
    except Exception as error:  # reading them runs code of the environment
        return {}, {"metrics": format_error(error)}


def _sort_metrics(metrics: Any) -> tuple[dict[str, float], dict[str, str]]:
    if isinstance(metrics, Mapping):
        named: Iterable[tuple[Any, Any]] = metrics.items()
    elif isinstance(metrics, Iterable):
        named = ((getattr(metric, "name", None), metric) for metric in metrics)
    else:
        return {}, {} if metrics is None else {"metrics": short_repr(metrics)}
    numbers: dict[str, float] = {}
    dropped: dict[str, str] = {}
    for name, metric in named:
        value = _metric_value(metric) if name else None
        if value is None:
            dropped[valid_text(str(name))] = short_repr(metric)
        else:
            numbers[valid_text(str(name))] = value
    return numbers, dropped


def _metric_value(metric: Any) -> float | None:
    candidates = (metric, *(getattr(metric, part, None) for part in ("score", "value", "success")))
    numbers = map(_to_float, candidates)
    return next((number for number in numbers if number is not None), None)


def _to_float(item: Any) -> float | None:
    """Return a number of any library as a finite float; None for text and what is not one number.

    A Decimal is not a ``numbers.Real``, nor are NumPy's booleans and tensors of one number.
    """
    if not hasattr(item, "__float__"):
        return None
    try:
        number = float(item)
    except Exception:  # an array of several numbers, for example: each library has its own error
        return None
    return number if math.isfinite(number) else None


def dropped_metrics(scores: Iterable[Score]) -> dict[str, str]:
    """Return the metrics that are not finite numbers, by name, with one of their values as text."""
    dropped: dict[str, str] = {}
    for score in scores:
        dropped |= score.dropped_metrics
    return dropped


def first_traceback(scores: Iterable[Score]) -> str:
    """Return the traceback of the first failed score, or an empty string."""
    return next((score.trace for score in scores if score.error), "")


def raise_if_all_failed(scores: Sequence[Score], examples: Sequence[str]) -> None:
    """Raise ``NothingJudgedError`` when no response of a step has a score.

    ``examples[i]`` names the example of ``scores[i]``.
    """
    if all(score.error for score in scores):
        episodes_failed = any(score.kind is FailureKind.EPISODE for score in scores)
        sentence = f"in {examples[0]}: {scores[0].error}"
        raise NothingJudgedError(sentence, episodes_failed=episodes_failed)


class WastedStepCounter:
    """Counts consecutive steps from which nothing could be learned."""

    def __init__(self) -> None:
        self._steps = 0

    def add_step(self, outcomes: Sequence[Outcome], group_size: int, max_tokens: int) -> str:
        """Count a step, and return a warning after ``WASTED_STEPS`` wasted ones, else "".

        A step is wasted when the learned completions of each group have equal rewards, because
        advantages are relative to the group's mean, or when a group has no learned completions.
        """
        flat = all(map(is_flat, split_groups(outcomes, group_size)))
        self._steps = self._steps + 1 if flat else 0
        if self._steps < WASTED_STEPS:
            return ""
        beginning = f"nothing was learned from the last {WASTED_STEPS} steps or more"
        cut_off = sum(outcome.cut_off for outcome in outcomes)
        if cut_off == len(outcomes):
            return (
                f"{beginning}, now because all completions were cut off at max_tokens = "
                f"{max_tokens}: raise train.max_tokens, or set train.stop_sequences"
            )
        not_judged = sum(not outcome.judged for outcome in outcomes)
        apart = (
            f", apart from {cut_off} of {len(outcomes)} that were cut off at max_tokens = "
            f"{max_tokens} and {not_judged} that could not be scored"
        )
        return (
            f"{beginning}, now because all completions of a prompt had the same reward"
            f"{apart if cut_off or not_judged else ''}: make the score distinguish better from "
            "worse completions"
        )


def failure_warning(scores: Sequence[Score], step: int, examples: Sequence[str] = ()) -> str:
    """Return a warning about the responses that could not be scored, or an empty string.

    ``examples[i]`` names the example of ``scores[i]``.
    """
    failed = [index for index, score in enumerate(scores) if score.error]
    if not failed:
        return ""
    place = f"in {examples[failed[0]]}: " if examples else ""
    return (
        f"the reward failed for {len(failed)} of {len(scores)} responses of step {step}, which "
        f"are not learned: {place}{scores[failed[0]].error}"
    )


def mean_metrics(scores: Iterable[Score]) -> dict[str, float]:
    """Return the mean of every metric of the environment as ``env/<name>``, and the failures.

    A mean is over the scored responses that have the metric. ``reward_errors`` is the share of all
    responses that have no score, ``reward_failed/<kind>`` is their number by kind.
    """
    scores = list(scores)
    values: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        for name, value in score.metrics.items():
            values[f"env/{name}"].append(value)
        values["reward_errors"].append(float(bool(score.error)))
    means = {name: statistics.fmean(numbers) for name, numbers in values.items()}
    kinds = Counter(score.kind for score in scores if score.error)
    return means | {f"reward_failed/{kind}": float(number) for kind, number in kinds.items()}
