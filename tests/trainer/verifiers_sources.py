"""Environments of verifiers, as people write them: a project with a module of its name."""

PROJECT = """
[project]
name = "{name}"
version = "0.1.0"
dependencies = ["verifiers>=0.1.9", "datasets"]
"""

PUZZLES = """
import verifiers as vf


def load_environment(gym="chain_sum", **sizes):
    return vf.ReasoningGymEnv(gym=gym, num_train_examples=8, num_eval_examples=4, **sizes)
"""

COUNTDOWN = """
import verifiers as vf


class Countdown:
    def reset(self, seed):
        self.left = 2 + seed % 2
        return f"There are {self.left} steps."

    def step(self, action):
        self.left -= 1
        return f"{self.left} to go after {len(action)} letters.", 0.5, self.left == 0, {}


def load_environment():
    return vf.GymEnv(env_cls=Countdown, num_train_episodes=4, num_eval_episodes=2)
"""

TOOLS = '''
from datasets import Dataset

import verifiers as vf


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first one.
        b: The second one.
    """
    return a + b


async def used(completion, **kwargs) -> float:
    calls = [call for message in completion for call in getattr(message, "tool_calls", None) or ()]
    return float(len(calls))


def right(completion, answer, **kwargs) -> float:
    return 1.0 if answer in str(completion[-1].content) else 0.0


def load_environment():
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(4)]
    rubric = vf.Rubric(funcs=[right, used], weights=[1.0, 0.0])
    return vf.ToolEnv(dataset=Dataset.from_list(rows), tools=[add], rubric=rubric, max_turns=3)
'''

TALK = """
import asyncio
import time

from datasets import Dataset

import verifiers as vf

started, cleaned = [], []


class Talk(vf.MultiTurnEnv):
    async def setup_state(self, state):
        started.append(state["example_id"])
        return state

    async def env_response(self, messages, state, **kwargs):
        word = str(messages[-1].content)
        if word == "sleep":
            await asyncio.sleep(60)
        if word == "block":
            time.sleep(60)
        if word == "fall":
            raise RuntimeError("out of words")
        if word == "rewrite":
            state["trajectory"][-1]["prompt"][0].content = "Something else."
        if word == "stop":
            state["final_env_response"] = [vf.UserMessage(content="Goodbye.")]
        return [vf.UserMessage(content=f"You said {word}.")]

    @vf.cleanup
    async def count(self, state):
        cleaned.append(state["example_id"])


async def turns(state, **kwargs) -> float:
    return float(len(state["trajectory"]))


def fragile(completion, **kwargs) -> float:
    if "spoil" in str(completion[0].content):
        raise ValueError("this answer cannot be judged")
    return 0.25


def unsure(completion, **kwargs) -> float:
    raise KeyError("no opinion")


def counted(state, **kwargs) -> float:
    return float(len(cleaned))


def begun(state, **kwargs) -> float:
    return float(len(started))


def load_environment(seconds=600.0, weights=(1.0, 2.0, 0.0, 0.0, 0.0)):
    rows = [{"question": f"Question {n}", "info": {"n": n}} for n in range(3)]
    return Talk(
        dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:1]),
        system_prompt="Talk.",
        rubric=vf.Rubric(funcs=[turns, fragile, unsure, counted, begun], weights=list(weights)),
        max_turns=4,
        reward_timeout_seconds=seconds,
    )
"""

GROUP = """
from datasets import Dataset

import verifiers as vf


def of_kind(kind):
    async def named(completion, **kwargs) -> float:
        return float(kind in str(completion[-1].content))

    named.__name__ = kind
    rows = Dataset.from_list([{"question": f"Say {kind}.", "answer": kind}])
    return vf.SingleTurnEnv(dataset=rows, rubric=vf.Rubric(funcs=[named]))


def load_environment():
    return vf.EnvGroup([of_kind("one"), of_kind("two")], env_names=["first", "second"])
"""

COMPARING = """
from datasets import Dataset

import verifiers as vf


def longest(completions, **kwargs) -> list[float]:
    return [0.0 for _ in completions]


def load_environment():
    rows = Dataset.from_list([{"question": "?", "answer": "!"}])
    return vf.SingleTurnEnv(dataset=rows, rubric=vf.Rubric(funcs=[longest]))
"""

JUDGED = """
from datasets import Dataset

import verifiers as vf


def load_environment():
    rows = Dataset.from_list([{"question": "?", "answer": "!"}])
    return vf.SingleTurnEnv(dataset=rows, rubric=vf.JudgeRubric())
"""

SANDBOX = """
from datasets import Dataset

import verifiers as vf


class Sandbox(vf.SandboxEnv):
    def __init__(self, **kwargs):
        vf.StatefulToolEnv.__init__(self, **kwargs)


def load_environment():
    return Sandbox(dataset=Dataset.from_list([{"question": "?", "answer": "!"}]))
"""

NOTHING = """
import verifiers


def load_environment():
    return {"not": "an environment"}
"""


def project(name: str, source: str, **files: str) -> dict[str, str]:
    """The files of a project of this name."""
    return {"pyproject.toml": PROJECT.format(name=name), f"{name}.py": source, **files}
