"""The files that ``flash env setup`` writes."""

import json
import tomllib

import pytest

from flashrun.api.config import RunConfig
from flashrun.cli.environments import template


@pytest.mark.parametrize("several_turns", [False, True])
@pytest.mark.parametrize("reasoning", [False, True])
def test_every_file_is_valid(several_turns: bool, reasoning: bool) -> None:
    files = template.files("org/env", "org/model", several_turns=several_turns, reasoning=reasoning)

    compile(files["environment.py"], "environment.py", "exec")
    rows = [json.loads(line) for line in files["dataset/train.jsonl"].splitlines()]
    assert all("<think>" in row["output"] for row in rows) == reasoning
    for name in ("configs/sft.toml", "configs/rl.toml"):
        config = RunConfig.validate_toml(tomllib.loads(files[name]))
        assert (config.environment.id, config.thinking) == ("org/env", reasoning)
