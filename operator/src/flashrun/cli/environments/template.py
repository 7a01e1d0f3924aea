"""The files that ``flash env setup`` writes: a small project that can be trained at once."""

from collections.abc import Sequence
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

DEFAULT_MODEL: Final = "Qwen/Qwen3.5-0.8B"
_THINKING: Final = "thinking = true\n"
_ROWS: Final = (("1 + 1", "2"), ("2 + 3", "5"), ("4 + 4", "8"))

_ROWS_OF_A_FILE: Final = '''\
"""Learns from the rows in dataset/: SFT imitates their answers."""

import re
from collections import Counter
from typing import Any

from freesolo.datasets import TaskExample
from freesolo.environments import EnvironmentSingleTurn, RewardMetric, RewardResult


class Rows(EnvironmentSingleTurn):
    """One prompt, one answer. The prompt of a row with messages is in the row."""

    def build_prompt_messages(self, example: TaskExample, prompt_text: str) -> list[dict[str, Any]]:
        prompt = example.record["input"]
        return prompt if isinstance(prompt, list) else [{"role": "user", "content": example.input}]

    def score_response(self, example: TaskExample, response_text: str) -> RewardResult:
        """Score one answer by the words that it shares with the row's own; 1 is the same words.

        Replace this by what counts as a good answer to you, above all before you use GRPO.
        """
        answer, right = words(without_reasoning(response_text)), words(answer_of(example))
        shared = (Counter(answer) & Counter(right)).total()
        score = 2 * shared / (len(answer) + len(right)) if answer and right else 0.0
        return RewardResult(score=score, metrics=(RewardMetric("exact", float(answer == right)),))


def words(text: str) -> list[str]:
    """Return the words of a text, numbers and signs included, in lower case."""
    return re.findall(r"\\w+|[^\\w\\s]", text.lower())


def without_reasoning(text: str) -> str:
    return text.rpartition("</think>")[2]


def answer_of(example: TaskExample) -> str:
    """Return the right answer to the prompt, without reasoning; calls of tools as text."""
    output: Any = example.output
    if not isinstance(output, dict) or "messages" not in output:
        return without_reasoning(str(output))
    answer = next(each for each in output["messages"] if each["role"] == "assistant")
    calls = [call["function"] for call in answer.get("tool_calls", ())]
    called = " ".join(f"{call['name']} {call['arguments']}" for call in calls)
    return f"{without_reasoning(answer['content'])} {called}"


def load_environment() -> Rows:
    """Return the environment; arguments come from [environment.params]."""
    return Rows()
'''

_SFT: Final = """\
model = "{model}"
algorithm = "sft"
{thinking}
[environment]
id = "{id}"

[train]
epochs = 3
"""

_SFT_OF_A_FILE: Final = f"{_SFT}max_length = {{max_length}}\n"

_EVAL_OF_A_FILE: Final = """
# Every save is scored on the held-out rows; metric = "loss" asks how likely their answers are.
[eval]
split = "eval"
metric = "score"
"""

_RL: Final = """\
model = "{model}"
algorithm = "grpo"
{thinking}
[environment]
id = "{id}"

[train]
steps = 50
group_size = 8
"""


def files(identifier: str, model: str, *, several_turns: bool, reasoning: bool) -> dict[str, str]:
    """Return every file of a new project by its path; ``identifier`` is ``<org>/<env>``."""
    thinking = _THINKING if reasoning else ""
    thought = "<think>The sum of {sum} is {answer}.</think>" if reasoning else ""
    rows = "".join(
        f'{{"input": "What is {task}? Answer with the number.", '
        f'"output": "{thought.format(sum=task, answer=answer)}{answer}"}}\n'
        for task, answer in _ROWS
    )
    return {
        "environment.py": _MULTI_TURN if several_turns else _SINGLE_TURN,
        "dataset/train.jsonl": rows,
        "configs/sft.toml": _SFT.format(id=identifier, model=model, thinking=thinking),
        "configs/rl.toml": _RL.format(id=identifier, model=model, thinking=thinking),
    }


def files_of_rows(
    identifier: str,
    model: str,
    train: Sequence[str],
    held_out: Sequence[str],
    *,
    reasoning: bool,
    max_length: int,
) -> dict[str, str]:
    """Return every file of a project that learns from rows, given as lines of JSON."""
    thinking = _THINKING if reasoning else ""
    config = _SFT_OF_A_FILE.format(
        id=identifier, model=model, thinking=thinking, max_length=max_length
    )
    files = {"environment.py": _ROWS_OF_A_FILE, "dataset/train.jsonl": _as_lines(train)}
    if held_out:
        files["dataset/eval.jsonl"] = _as_lines(held_out)
        config += _EVAL_OF_A_FILE
    return {**files, "configs/sft.toml": config}


def _as_lines(rows: Sequence[str]) -> str:
    return "".join(f"{row}\n" for row in rows)
