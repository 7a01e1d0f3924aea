"""Configs that are accepted, as hypothesis makes them: every key, in each form it may have."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as some

from flashrun.api.catalog import BUILT_IN
from flashrun.cli.config.compose import ConfigFile
from flashrun.cli.config.toml_text import toml_value

words = some.text("abcdefghij-_ é\n\"'\\", min_size=1, max_size=12)
"""Text with everything that needs escaping somewhere."""

_projects = some.text("abcé'\"= ", min_size=1, max_size=12).filter(lambda text: text.strip())
_labels = some.text("abcé'\"\\#= ", min_size=1, max_size=12).filter(lambda text: text.strip())
_json = some.recursive(
    some.booleans() | some.integers(-(2**53), 2**53) | some.floats(-1e9, 1e9) | words,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
_requirements = some.sampled_from(
    ["openai>=1", "numpy", "httpx[http2]", "uvloop; python_version < '4'",
     "own @ https://files.example/own-1-py3-none-any.whl"]
)  # fmt: skip


def _whole(low: int, high: int) -> some.SearchStrategy[Any]:
    """Integers, now and then written as floats."""
    numbers = some.integers(low, high)
    return numbers | numbers.map(float)


_train = some.fixed_dictionaries(
    {},
    optional={
        "lora_rank": _whole(1, 1024),
        "lora_alpha": _whole(1, 65536),
        "learning_rate": some.floats(1e-12, 1e3) | some.integers(1, 3),
        "batch_size": _whole(1, 10**6),
        "max_length": _whole(1, 10**7),
        "save_every": _whole(1, 10**8),
        "init_from_adapter": some.sampled_from(["", "flash-1-a", " flash-1-a/step-5 "]),
        "epochs": _whole(1, 10**6),
        "max_steps": _whole(0, 10**8),
        "max_examples": _whole(0, 10**9),
        "steps": _whole(1, 10**8),
        "group_size": _whole(2, 4096),
        "temperature": some.floats(0, 10) | some.just(0),
        "max_tokens": _whole(1, 10**7),
        "kl_penalty_coef": some.floats(0, 10),
        "advantage_clip": some.floats(0, 10),
        "thinking_length_penalty_coef": some.floats(0, 1),
        "stop_sequences": some.lists(words | some.just(""), max_size=3) | words,
    },
)

_eval = some.fixed_dictionaries(
    {},
    optional={
        "enabled": some.booleans(),
        "split": some.sampled_from(["eval", " held-out ", "A.1_b"]),
        "every": _whole(1, 10**8),
        "max_examples": _whole(1, 10**6),
        "samples": _whole(1, 1024),
        "max_tokens": _whole(1, 10**7),
        "metric": some.sampled_from(["score", "exact", "pass@4", "loss", "é"]),
    },
)

configs: some.SearchStrategy[dict[str, Any]] = some.fixed_dictionaries(
    {
        "model": some.sampled_from([model.id for model in BUILT_IN]),
        "environment": some.fixed_dictionaries(
            {"id": some.sampled_from(["a/b", " your-org/your-env ", "A.1/b_2"])},
            optional={
                "params": some.dictionaries(
                    words.filter(lambda key: key != "split"), _json, max_size=64
                )
                | some.just({"split": "test"}),
                "pip": some.lists(_requirements, max_size=3),
                "secrets": some.lists(
                    some.sampled_from(["A", "B_1", "SERVICE_API_KEY"]), max_size=64
                ),
            },
        ),
    },
    optional={
        "algorithm": some.sampled_from(["sft", "grpo", "GRPO", ""]),
        "thinking": some.booleans(),
        "train": _train,
        "eval": _eval,
        "worker_env": some.dictionaries(some.sampled_from(["FLAG", "LEVEL", "lower"]), words),
        "wandb": some.fixed_dictionaries({}, optional={"project": _projects, "run_name": _labels}),
    },
)
"""Tables in the TOML spelling."""


def toml_file(tables: Mapping[str, Any]) -> ConfigFile:
    """Return the tables as a TOML file, each table on a line of its own."""
    text = "".join(f"{key} = {toml_value(value)}\n" for key, value in tables.items())
    return ConfigFile("run.toml", text.encode())


def json_file(tables: Mapping[str, Any]) -> ConfigFile:
    """Return the tables as a JSON file."""
    return ConfigFile("run.json", json.dumps(tables).encode())
