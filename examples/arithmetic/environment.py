"""Sums of two numbers below 100, answered with the number only: something a small model can learn.

The score of a right answer is 1, of a wrong number 0.2, of anything else 0. A model that answers in
sentences, as instruction-tuned ones do, begins at 0.
"""

import re

from freesolo.datasets import TaskExample
from freesolo.environments import EnvironmentSingleTurn, RewardMetric, RewardResult

NUMBER = re.compile(r"-?\d+")


class Arithmetic(EnvironmentSingleTurn):
    """One sum, answered with one number."""

    def build_prompt_messages(self, example: TaskExample, prompt_text: str) -> list[dict[str, str]]:
        # A system message of its own: the template would add a longer one.
        return [
            {"role": "system", "content": "Reply with the number only."},
            {"role": "user", "content": str(example.input)},
        ]

    def score_response(self, example: TaskExample, response_text: str) -> RewardResult:
        answer = response_text.strip()
        form, right = bool(NUMBER.fullmatch(answer)), answer == example.output
        return RewardResult(
            score=1.0 if right else 0.2 * form,
            metrics=(RewardMetric("format", float(form)), RewardMetric("accuracy", float(right))),
        )


def load_environment() -> Arithmetic:
    return Arithmetic()
