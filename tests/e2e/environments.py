"""Environments that go wrong, each in one way, made from the one in examples/sums."""

import json
import shutil
from pathlib import Path

SUMS = Path(__file__).parents[2] / "examples" / "sums"

HEAD = """
from freesolo.datasets import TaskExample
from freesolo.environments import EnvironmentSingleTurn, RewardResult


class Environment(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]
"""

RAISING_REWARD = (
    HEAD
    + """
    def score_response(self, example, response_text):
        return RewardResult(score=1 / 0)


def load_environment():
    return Environment()
"""
)

READS_SECRET = (
    HEAD
    + """
    def score_response(self, example, response_text):
        return RewardResult(score=0.0)


def load_environment(digest):
    import hashlib
    import os

    found = hashlib.sha256(os.environ["SERVICE_API_KEY"].encode()).hexdigest()
    if found != digest:
        raise ValueError(f"the secret arrived as sha256:{found}")
    return Environment()
"""
)

BROKEN_IN_ONE_PROCESS = (
    HEAD
    + """
    def score_response(self, example, response_text):
        return RewardResult(score=0.0)


def load_environment():
    import os

    if os.environ.get("RANK") == "1":
        raise RuntimeError("the second process has no data")
    return Environment()
"""
)

BROKEN_IMPORT = "import a_module_that_nobody_has\n"


def write(folder: Path, source: str | None = None) -> Path:
    """Make an environment package in ``folder``: the sums, or ``source`` over the same rows."""
    shutil.copytree(SUMS / "dataset", folder / "dataset")
    text = (SUMS / "environment.py").read_text() if source is None else source
    (folder / "environment.py").write_text(text)
    return folder


def config(folder: Path, environment_id: str, algorithm: str = "grpo", **extra: object) -> Path:
    """Write a config for a short run on the tiny model, or on another one of its kind."""
    tables = {"environment": {"id": environment_id, **extra.get("environment", {})}}  # type: ignore[dict-item]
    knobs = {"max_length": 128, "learning_rate": 0.01, "batch_size": 2, "save_every": 2}
    # The tiny model rarely ends an answer itself, and what is cut off is not learned from.
    knobs |= (
        {"steps": 4, "group_size": 4, "max_tokens": 8, "stop_sequences": ["\n\n"]}
        if algorithm == "grpo"
        else {"max_steps": 6}
    )
    knobs |= extra.get("train", {})  # type: ignore[operator, arg-type]
    model = extra.get("model", "flashrun/tiny-qwen3")
    lines = [f'model = "{model}"', f'algorithm = "{algorithm}"', "", "[environment]"]
    lines += [f"{key} = {_toml(value)}" for key, value in tables["environment"].items()]
    lines += ["", "[train]", *(f"{key} = {_toml(value)}" for key, value in knobs.items())]
    path = folder / "config.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)
