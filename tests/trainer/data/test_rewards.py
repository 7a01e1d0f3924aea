"""Scores of a step: on as many threads as the environment allows, failures counted."""

import threading
from asyncio import CancelledError
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from freesolo.environments import (
    EnvironmentEpisode,
    EnvironmentMultiTurn,
    EnvironmentSingleTurn,
    RewardMetric,
    RewardResult,
)

from flashrun_trainer.data import rewards
from flashrun_trainer.data.advantages import Outcome
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.messages import Answer
from flashrun_trainer.data.retries import NothingJudgedError
from flashrun_trainer.data.rewards import FailureKind, Score


class Judge(EnvironmentSingleTurn):
    def build_prompt_messages(self, example: Any, prompt_text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "?"}]

    def score_response(self, example: Any, response_text: str) -> RewardResult:
        return RewardResult(score=float(len(response_text)))


def judged(sdk: EnvironmentSingleTurn, *texts: str) -> list[Score]:
    """Scores of answers to two examples in turn."""
    examples = [SimpleNamespace(name="first"), SimpleNamespace(name="second")]
    half = len(texts) // 2
    return rewards.score_responses(
        Environment(sdk, examples, ""),
        [examples[index >= half] for index in range(len(texts))],
        [Answer(text) for text in texts],
    )


def test_scores_come_in_the_order_of_the_answers():
    assert [score.reward for score in judged(Judge(), "a", "bbb", "", "cc")] == [1, 3, 0, 2]


@pytest.mark.parametrize("threads", [2, 3])
def test_as_many_threads_score_as_the_environment_allows_and_no_more(threads: int):
    together = threading.Barrier(threads, timeout=20)
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    class Slow(Judge):
        max_score_concurrency = threads

        def score_response(self, example: Any, response_text: str) -> RewardResult:
            with lock:
                running.append(1)
                most.append(len(running))
            together.wait()
            with lock:
                running.pop()
            return RewardResult(score=1.0)

    found = judged(Slow(), *"abcdef")
    assert [score.error for score in found] == [""] * 6
    assert max(most) == threads


@pytest.mark.parametrize(
    "setting", [{"reward_thread_safe": False}, {"max_score_concurrency": 1}], ids=str
)
def test_an_environment_that_is_not_thread_safe_scores_on_the_callers_thread(
    setting: dict[str, Any],
):
    seen = []

    class Careful(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            seen.append(threading.current_thread())
            return RewardResult(score=1.0)

    class Comparing(Careful):
        def score_responses(self, example: Any, response_texts: list[str]) -> list[RewardResult]:
            return super().score_responses(example, response_texts)

    judged(type("Set", (Careful,), setting)(), *"abcd")
    judged(type("Set", (Comparing,), setting)(), *"abcd")
    assert seen == [threading.main_thread()] * 8


def test_an_environment_that_compares_gets_all_answers_to_an_example_at_once():
    calls = []

    class Ranking(Judge):
        max_score_concurrency = 1

        def score_responses(self, example: Any, response_texts: list[str]) -> list[RewardResult]:
            calls.append((example.name, list(response_texts)))
            if example.name == "second":
                raise ConnectionError("the judge is away")
            return [RewardResult(score=float(place)) for place, _ in enumerate(response_texts)]

    found = judged(Ranking(), "a", "b", "c", "d")
    assert calls == [("first", ["a", "b"]), ("second", ["c", "d"])]
    assert [score.reward for score in found] == [0, 1, 0, 0]
    assert [score.error for score in found] == ["", ""] + ["ConnectionError: the judge is away"] * 2


def test_one_bad_score_in_a_group_does_not_change_the_others():
    class Ranking(Judge):
        def score_responses(self, example: Any, response_texts: list[str]) -> list[Any]:
            if response_texts == ["d", "e"]:
                return []
            return [None if text == "b" else RewardResult(score=1.0) for text in response_texts]

    found = judged(Ranking(), "a", "b", "d", "e")
    assert [score.reward for score in found] == [1, 0, 0, 0]
    assert [score.error for score in found][:2] == [
        "",
        "TypeError: a score must be a RewardResult, not None",
    ]
    assert "0 scores for 2 responses" in found[2].error


class Rally(EnvironmentMultiTurn):
    """Scores the episodes of an example together."""

    def start_episode(self, example: Any, prompt_text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "?"}]

    def max_episode_turns(self, example: Any) -> int:
        return 2

    def step_episode(self, example: Any, messages: Any, assistant_response: str) -> Any:
        raise AssertionError("nothing is played here")

    def score_episode(self, example: Any, episode: EnvironmentEpisode) -> RewardResult:
        raise AssertionError("episodes of one example are scored together")

    def score_episodes(self, example: Any, episodes: list[EnvironmentEpisode]) -> list[Any]:
        return [RewardResult(score=float(place)) for place, _ in enumerate(episodes)]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("compares", [False, True])
def test_a_score_that_hangs_is_a_failure_of_its_own_kind(concurrency: int, compares: bool):
    class Hanging(Judge):
        reward_timeout_seconds = 0.3
        max_score_concurrency = concurrency

        def score_response(self, example: Any, response_text: str) -> RewardResult:
            if response_text == "hang":
                threading.Event().wait()
            return super().score_response(example, response_text)

    class Comparing(Hanging):
        def score_responses(self, example: Any, response_texts: list[str]) -> list[RewardResult]:
            return [self.score_response(example, text) for text in response_texts]

    found = judged(Comparing() if compares else Hanging(), "a", "bb", "hang", "dddd")
    lost = [2, 3] if compares else [2]
    assert [index for index, score in enumerate(found) if score.error] == lost
    assert [score.reward for score in found[:2]] == [1, 2]
    assert (found[2].kind, "reward_timeout_seconds = 0.3" in found[2].error) == ("timed_out", True)
    assert "in score_response" in found[2].trace
    assert rewards.mean_metrics(found)["reward_failed/timed_out"] == len(lost)


def test_text_that_is_not_unicode_in_an_error_or_a_metric_costs_one_score():
    class Odd(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            if response_text == "b":
                raise ValueError("half \ud83d of it")
            return RewardResult(score=1.0, metrics=(RewardMetric("half \ud83d", value=1),))

    found = judged(Odd(), "a", "b")
    assert [score.error for score in found] == ["", r"ValueError: half \ud83d of it"]
    assert found[0].metrics == {r"half \ud83d": 1.0}


def test_episodes_are_compared_when_the_environment_compares_them():
    example = SimpleNamespace(name="first")
    episodes = [EnvironmentEpisode((), text) for text in "ab"]
    broken = rewards.failed_score(ValueError("no move"))
    found = rewards.score_responses(
        Environment(Rally(), [example], ""), [example] * 3, [episodes[0], broken, episodes[1]]
    )
    assert [score.reward for score in found] == [0, 0, 1]
    assert [score.error for score in found] == ["", "ValueError: no move", ""]


class UnprintableError(Exception):
    """As exceptions of clients whose message needs a response that they did not get."""

    def __str__(self) -> str:
        raise AttributeError("'NoneType' object has no attribute 'text'")

    __repr__ = __str__


def test_what_cannot_be_printed_costs_one_score_or_one_metric():
    class Odd(Judge):
        def score_response(self, example: Any, response_text: str) -> Any:
            match response_text:
                case "a":
                    raise UnprintableError
                case "b":
                    return UnprintableError()
                case "c":
                    return RewardResult(score=1.0, error=UnprintableError())  # type: ignore[arg-type]
            metrics: Any = {"odd": UnprintableError(), "plain": 1.0}
            return RewardResult(score=1.0, metrics=metrics)

    found = judged(Odd(), *"abcd")
    assert [score.error for score in found] == [
        "UnprintableError: its message cannot be printed (AttributeError)",
        "TypeError: a score must be a RewardResult, not <UnprintableError>",
        "the environment returned a RewardResult with the error <UnprintableError>",
        "",
    ]
    assert found[3].metrics == {"plain": 1.0}
    assert found[3].dropped_metrics == {"odd": "<UnprintableError>"}


def test_metrics_that_cannot_be_read_cost_no_score():
    class Odd(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            metrics: Any = (1 / int(number) for number in "10")
            return RewardResult(score=1.0, metrics=metrics)

    found = judged(Odd(), "a", "b")
    assert [score.reward for score in found] == [1.0, 1.0]
    assert found[0].dropped_metrics == {"metrics": "ZeroDivisionError: division by zero"}


@pytest.mark.parametrize("nothing", [None, "", False])
def test_an_error_of_nothing_is_not_an_error(nothing: Any):
    class Fine(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            return RewardResult(score=1.0, error=nothing)

    assert [score.error for score in judged(Fine(), "a", "b")] == ["", ""]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, CancelledError, RecursionError])
def test_exceptions_of_code_that_a_model_wrote_fail_one_score(kind: type[BaseException]):
    class Running(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            if response_text == "exit()":
                raise kind
            return RewardResult(score=1.0)

    found = judged(Running(), "1", "exit()", "2", "3")
    assert [score.reward for score in found] == [1, 0, 1, 1]
    assert found[1].error == kind.__name__


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (None, "a score must be a RewardResult, not None"),
    "a number": (1.0, "a score must be a RewardResult, not 1.0"),
    "not a number": (RewardResult(score=float("nan")), "which is not finite"),
    "infinity": (RewardResult(score=float("inf")), "which is not finite"),
    "what is infinite in float32": (RewardResult(score=-1e39), "which is not finite in float32"),
}


def test_an_async_scoring_method_is_reported():
    class Later(Judge):
        async def score_response(self, example: Any, response_text: str) -> RewardResult:
            return RewardResult(score=1.0)

    found = judged(Later(), "a", "b")
    assert "the scoring method must not be async" in found[0].error


@pytest.mark.parametrize("case", WRONG)
def test_a_score_of_the_wrong_shape_is_a_failure_that_is_counted(case: str):
    result, words = WRONG[case]

    class Wrong(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            return result if response_text == "b" else RewardResult(score=1.0)

    found = judged(Wrong(), "a", "b", "a", "a")
    assert [bool(score.error) for score in found] == [False, True, False, False]
    assert words in found[1].error
    assert rewards.mean_metrics(found)["reward_errors"] == 0.25
    assert "1 of 4 responses of step 7" in rewards.failure_warning(found, 7)


def test_metrics_are_averaged_over_the_responses_that_have_them():
    class Metrics(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            right = (RewardMetric("right", 1.0),) if response_text == "a" else ()
            length = RewardMetric("length", float(len(response_text)))
            # As libraries for numbers have number types of their own.
            half = RewardMetric("half", value=Fraction(1, 2))
            return RewardResult(score=1.0, metrics=(length, half, *right))

    means = rewards.mean_metrics(judged(Metrics(), "a", "bbb", "a", "bbb"))
    assert means == {"env/length": 2.0, "env/half": 0.5, "env/right": 1.0, "reward_errors": 0.0}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"accuracy": 1.0, "note": "good"}, {"accuracy": 1.0}),
        (None, {}),
        (3, {}),
        (("right",), {}),
        ((RewardMetric("right", float("nan"), success=True),), {"right": 1.0}),
    ],
)
def test_metrics_of_any_shape_cost_nobody_a_score(metrics: Any, expected: dict[str, float]):
    class Odd(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            return RewardResult(score=1.0, metrics=metrics)

    assert judged(Odd(), "a", "b")[0] == Score(1.0, expected)


def test_steps_whose_learned_completions_are_equal_or_too_few_are_warned_about():
    waste = rewards.WastedStepCounter()
    step = [Outcome(1.0), Outcome(0.0, cut_off=True), Outcome(1.0), Outcome(0.0, judged=False)]
    said = [waste.add_step(step, 2, 320) for _ in range(5)]
    assert said[:4] == [""] * 4
    assert "1 of 4 that were cut off at max_tokens = 320 and 1 that could not be scored" in said[4]
    assert waste.add_step([Outcome(0.5), *step[1:3], Outcome(0.0)], 2, 320) == ""


FAILURES: dict[str, tuple[Any, str]] = {
    "nothing": (None, "invalid"),
    "text": (RewardResult(score="good"), "invalid"),  # type: ignore[arg-type]
    "not finite": (RewardResult(score=float("nan")), "invalid"),
    "an error of its own": (RewardResult(score=1.0, error="no judge"), "reported"),
    "an exception": (ConnectionError("the judge is away"), "raised"),
}


@pytest.mark.parametrize("compares", [False, True])
@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_counted_by_kind_and_have_no_share_in_means(case: str, compares: bool):
    result, kind = FAILURES[case]

    class Failing(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            if response_text != "b":
                return RewardResult(score=1.0, metrics=(RewardMetric("length", 1.0),))
            if isinstance(result, Exception):
                raise result
            return result

    class Comparing(Failing):
        def score_responses(self, example: Any, response_texts: list[str]) -> list[Any]:
            return [self.score_response(example, text) for text in response_texts]

    found = judged(Comparing() if compares else Failing(), "b", "b", "a", "a")
    means = rewards.mean_metrics(found)
    assert means == {"env/length": 1.0, "reward_errors": 0.5, f"reward_failed/{kind}": 2.0}
    warning = rewards.failure_warning(found, 7, ["row 3", "row 3", "row 4", "row 4"])
    assert "2 of 4 responses of step 7, which are not learned: in row 3: " in warning
    if kind == "reported":
        assert warning.endswith("RewardResult with the error 'no judge'")


NUMBERS: dict[str, tuple[Any, float | None]] = {
    "bool": (True, 1.0),
    "int": (3, 3.0),
    "Decimal": (Decimal("0.25"), 0.25),
    "Fraction": (Fraction(1, 4), 0.25),
    "text": ("0.25", None),
    "not a number": (float("nan"), None),
    "Decimal that is not finite": (Decimal("NaN"), None),
    "nothing": (None, None),
    "a list": ([1.0], None),
}


def judged_metrics(shape: str, odd: Any) -> list[Score]:
    """Scores with two metrics: ``plain``, and ``odd`` in a field of its own or in a mapping."""

    class Odd(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            metrics: Any = {"odd": odd, "plain": 1.0}
            if shape != "mapping":
                metrics = (RewardMetric("odd", **{shape: odd}), RewardMetric("plain", 1.0))
            return RewardResult(score=1.0, metrics=metrics)

    return judged(Odd(), "a", "b")


def assert_arrives(found: list[Score], expected: float | None) -> None:
    means = rewards.mean_metrics(found)
    assert means.get("env/odd") == expected
    assert means["env/plain"] == 1.0
    assert list(rewards.dropped_metrics(found)) == (["odd"] if expected is None else [])


@pytest.mark.parametrize("shape", ["value", "score", "mapping"])
@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_arrive_as_metrics_and_what_does_not_is_named(case: str, shape: str):
    odd, expected = NUMBERS[case]
    assert_arrives(judged_metrics(shape, odd), expected)


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("shape", ["value", "score", "mapping"])
def test_numbers_of_numpy_and_pytorch_arrive_as_metrics(shape: str):
    import numpy
    import torch

    numbers: list[tuple[Any, float | None]] = [
        (numpy.float32(0.25), 0.25),
        (numpy.int64(2), 2.0),
        (numpy.bool_(True), 1.0),
        (numpy.array(0.25), 0.25),
        (numpy.array([1.0, 2.0]), None),
        (torch.tensor(0.25), 0.25),
        (torch.tensor([1]), 1.0),
        (torch.tensor(True), 1.0),
        (torch.tensor(2.0, dtype=torch.bfloat16, requires_grad=True), 2.0),
        (torch.ones(2), None),
    ]
    for odd, expected in numbers:
        assert_arrives(judged_metrics(shape, odd), expected)


def test_a_step_without_any_score_is_not_a_step():
    failed = [Score(error="ValueError: no", kind=FailureKind.EPISODE), Score(error="ValueError: x")]
    with pytest.raises(NothingJudgedError) as error:
        rewards.raise_if_all_failed(failed, ["row 3", "row 4"])
    assert error.value.sentence == "in row 3: ValueError: no"
    assert error.value.episodes_failed
    rewards.raise_if_all_failed([*failed, Score(1.0)], ["row 3", "row 4", "row 4"])


FLAT, SPREAD, CUT = ([1, 1, 0, 0], None), ([1, 0, 0, 0], None), ([1, 0, 0, 1], 320)

STEPS: dict[str, tuple[list[tuple[list[float], int | None]], str]] = {
    "spread is nothing to warn about": ([SPREAD] * 9, ""),
    "a few flat steps happen": ([FLAT] * 4, ""),
    "flat for a while": (
        [FLAT] * 5,
        "the last 5 steps or more, now because all completions of a prompt had the same reward",
    ),
    "and for longer": ([FLAT] * 50, "make the score distinguish better from worse"),
    "one group with a spread is enough": ([FLAT] * 4 + [SPREAD] + [FLAT] * 4, ""),
    "the warning is taken back": ([FLAT] * 9 + [SPREAD], ""),
    "everything is cut off": ([CUT] * 5, "all completions were cut off at max_tokens = 320"),
    "the newest reason counts": ([FLAT] * 4 + [CUT], "raise train.max_tokens"),
    "and says no more than is true": (
        [FLAT] * 4 + [CUT],
        "5 steps or more, now because all completions were cut off",
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_steps_without_anything_to_learn_are_warned_about_before_they_are_many(case: str):
    steps, words = STEPS[case]
    waste = rewards.WastedStepCounter()
    said = [
        waste.add_step([Outcome(reward, cut_off=cut_at is not None) for reward in step], 2, 320)
        for step, cut_at in steps
    ]
    assert words in said[-1]
    assert bool(said[-1]) == bool(words)
