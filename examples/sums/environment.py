"""Sums of small numbers: a minimal environment for SFT and GRPO.

The score has two parts. The share of digits in the answer can be improved by a random model within
a minute; the other part is whether the sum is right.
"""

from freesolo.datasets import TaskExample
from freesolo.environments import EnvironmentSingleTurn, RewardMetric, RewardResult


class Sums(EnvironmentSingleTurn):
    """One question, answered with one number."""

    def __init__(self, instruction: str) -> None:
        self.instruction = instruction

    def build_prompt_messages(self, example: TaskExample, prompt_text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"{example.input} {self.instruction}"}]

    def score_response(self, example: TaskExample, response_text: str) -> RewardResult:
        digits = share_of_digits(response_text)
        right = float(response_text.strip() == example.output)
        return RewardResult(
            score=0.5 * digits + 0.5 * right,
            metrics=(RewardMetric("digits", digits), RewardMetric("right", right)),
        )


def share_of_digits(text: str) -> float:
    """Return the share of digits among the characters; 0 for an empty answer."""
    answer = text.strip()
    return sum(character.isdigit() for character in answer) / max(1, len(answer))


def load_environment(instruction: str = "Answer with digits only.") -> Sums:
    return Sums(instruction)
