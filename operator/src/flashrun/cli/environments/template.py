"""The files that ``flash env setup`` writes: a small project that can be trained at once."""

from typing import Final

_SINGLE_TURN: Final = '''\
"""What a run learns from: prompts, answers to imitate (SFT), and a score (GRPO)."""

from freesolo.datasets import TaskExample
from freesolo.environments import EnvironmentSingleTurn, RewardResult


class Task(EnvironmentSingleTurn):
    """One prompt, one answer."""

    def build_prompt_messages(self, example: TaskExample, prompt_text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": example.input}]

    def score_response(self, example: TaskExample, response_text: str) -> RewardResult:
        """Score one answer, best between 0 and 1; partial scores help the model to improve.

        Reasoning is left out of response_text: response_text.thinking has it.
        """
        return RewardResult(score=float(response_text.strip() == answer_of(example)))


def answer_of(example: TaskExample) -> str:
    """Return the right answer, without the reasoning that a row may give."""
    return str(example.output).rpartition("</think>")[2].strip()


def load_environment() -> Task:
    """Return the environment; arguments come from [environment.params]."""
    return Task()
'''

_MULTI_TURN: Final = '''\
"""What a run learns from: conversations to imitate (SFT), and a score of each (GRPO)."""

from freesolo.datasets import TaskExample
from freesolo.environments import (
    EnvironmentEpisode,
    EnvironmentMultiTurn,
    EnvironmentStepResult,
    RewardResult,
)


class Task(EnvironmentMultiTurn):
    """A question, and a second try when the first answer is wrong."""

    def start_episode(self, example: TaskExample, prompt_text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": example.input}]

    def max_episode_turns(self, example: TaskExample) -> int:
        return 2

    def step_episode(
        self, example: TaskExample, messages: list[dict[str, str]], assistant_response: str
    ) -> EnvironmentStepResult:
        """Reply to an answer; messages end with it."""
        if assistant_response.strip() == answer_of(example):
            return EnvironmentStepResult(done=True)
        again = {"role": "user", "content": "That is not right. Try once more."}
        return EnvironmentStepResult(done=False, messages=(again,))

    def score_episode(self, example: TaskExample, episode: EnvironmentEpisode) -> RewardResult:
        """Score a conversation, best between 0 and 1; a late right answer is worth half."""
        right = episode.response_text.strip() == answer_of(example)
        answers = sum(turn.role == "assistant" for turn in episode.turns)
        return RewardResult(score=right / max(1, answers))


def answer_of(example: TaskExample) -> str:
    """Return the right answer, without the reasoning that a row may give."""
    return str(example.output).rpartition("</think>")[2].strip()


def load_environment() -> Task:
    """Return the environment; arguments come from [environment.params]."""
    return Task()
'''

_ROWS: Final = (("1 + 1", "2"), ("2 + 3", "5"), ("4 + 4", "8"))

_SFT: Final = """\
model = "Qwen/Qwen3.5-0.8B"
algorithm = "sft"
{thinking}
[environment]
id = "{id}"

[train]
epochs = 3
"""

_RL: Final = """\
model = "Qwen/Qwen3.5-0.8B"
algorithm = "grpo"
{thinking}
[environment]
id = "{id}"

[train]
steps = 50
group_size = 8
"""


def files(identifier: str, *, several_turns: bool, reasoning: bool) -> dict[str, str]:
    """Return every file of a new project by its path; ``identifier`` is ``<org>/<env>``."""
    thinking = "thinking = true\n" if reasoning else ""
    thought = "<think>The sum of {sum} is {answer}.</think>" if reasoning else ""
    rows = "".join(
        f'{{"input": "What is {task}? Answer with the number.", '
        f'"output": "{thought.format(sum=task, answer=answer)}{answer}"}}\n'
        for task, answer in _ROWS
    )
    return {
        "environment.py": _MULTI_TURN if several_turns else _SINGLE_TURN,
        "dataset/train.jsonl": rows,
        "configs/sft.toml": _SFT.format(id=identifier, thinking=thinking),
        "configs/rl.toml": _RL.format(id=identifier, thinking=thinking),
    }
