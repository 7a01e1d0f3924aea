"""The files that ``flash env setup`` writes: a small environment that trains as it is."""

from typing import Final

FILES: Final[dict[str, str]] = {
    "environment.py": '''\
"""What a run learns from: prompts, answers to imitate (SFT), and a score (GRPO)."""

from freesolo.datasets import TaskExample
from freesolo.environments import EnvironmentSingleTurn, RewardResult


class Task(EnvironmentSingleTurn):
    """One prompt, one answer."""

    def build_prompt_messages(self, example: TaskExample, prompt_text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": str(example.input)}]

    def score_response(self, example: TaskExample, response_text: str) -> RewardResult:
        """Score one answer, best between 0 and 1; parts of a point help a model to climb."""
        return RewardResult(score=float(response_text.strip() == str(example.output)))


def load_environment() -> Task:
    """Return the environment; arguments come from [environment.params]."""
    return Task()
''',
    "dataset/train.jsonl": """\
{"input": "What is 1 + 1? Answer with the number.", "output": "2"}
{"input": "What is 2 + 3? Answer with the number.", "output": "5"}
{"input": "What is 4 + 4? Answer with the number.", "output": "8"}
""",
    "sft.toml": """\
model = "Qwen/Qwen3.5-0.8B"
algorithm = "sft"

[environment]
id = "{id}"

[train]
epochs = 3
""",
    "grpo.toml": """\
model = "Qwen/Qwen3.5-0.8B"
algorithm = "grpo"

[environment]
id = "{id}"

[train]
steps = 50
group_size = 8
""",
}
