"""Rows and messages as people write them, and an environment that has them."""

from typing import Any

from freesolo.environments import EnvironmentSingleTurn

from flashrun_trainer.data import dataset
from flashrun_trainer.data.environment import Environment

USER = {"role": "user", "content": "What is 1 plus 1?"}
SYSTEM = {"role": "system", "content": "Be brief."}
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def assistant(content: Any = "2", **others: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **others}


def call(arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "add", "arguments": arguments}}


class Plain(EnvironmentSingleTurn):
    """An environment that does nothing of its own."""

    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def score_response(self, example, response_text): ...


def environment_of(*rows: Any, sdk: Any = None) -> Environment:
    examples = dataset.load_examples(None, {"records": list(rows)}, None)
    return Environment(sdk or Plain(), examples, "")


WHOLE = {"messages": [SYSTEM, USER, assistant(weight=0), USER, assistant("4")], "tools": [ADD]}
"""A row that is a whole conversation."""
