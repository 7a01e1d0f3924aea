"""Puzzles that reasoning-gym makes and scores: sums, ciphers, mazes and some hundred other tasks.

``[environment.params] task`` chooses the task, and ``settings`` how hard it is. A row of the
dataset is only the number of a puzzle: the puzzle follows from it and from ``seed``.
"""

from collections.abc import Mapping
from typing import Any

import reasoning_gym
from freesolo.datasets import TaskExample
from freesolo.environments import EnvironmentSingleTurn, RewardMetric, RewardResult

NUMBERS = 1_000_000
"""Puzzles of a task; each one is made when it is asked for."""


class Reasoning(EnvironmentSingleTurn):
    """One puzzle, one answer."""

    def __init__(self, task: str, seed: int, settings: Mapping[str, Any]) -> None:
        self.puzzles = reasoning_gym.create_dataset(task, size=NUMBERS, seed=seed, **settings)

    def puzzle(self, example: TaskExample) -> dict[str, Any]:
        return self.puzzles[int(example.input)]

    def build_prompt_messages(self, example: TaskExample, prompt_text: str) -> list[dict[str, str]]:
        question = self.puzzle(example)["question"]
        return [{"role": "user", "content": f"{question}\nReply with the answer only."}]

    def score_response(self, example: TaskExample, response_text: str) -> RewardResult:
        """Score an answer as reasoning-gym does: 1 is right, and other answers may get a part."""
        score = self.puzzles.score_answer(response_text.strip(), self.puzzle(example))
        return RewardResult(score=score, metrics=(RewardMetric("right", float(score == 1)),))

    def sft_completion(self, example: TaskExample) -> list[dict[str, str]]:
        """Return the answer that SFT imitates."""
        return [{"role": "assistant", "content": self.puzzle(example)["answer"]}]


def load_environment(
    task: str = "chain_sum", seed: int = 0, settings: Mapping[str, Any] | None = None
) -> Reasoning:
    return Reasoning(task, seed, settings or {})
