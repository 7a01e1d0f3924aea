"""examples/reasoning: puzzles of reasoning-gym, and their scores."""

import json
import re
import runpy
import tomllib
from typing import Any

import pytest

from flashrun.api.config import RunConfig
from flashrun.api.env_check_records import EnvCheckTask
from flashrun.cli.environments.env_check import PlannedRun, assess, run_env_check
from tests.trainer.pods import ROOT

# What reasoning-gym imports is compiled with warnings.
pytestmark = pytest.mark.filterwarnings("default")

EXAMPLE = ROOT / "examples" / "reasoning"
CONFIG = RunConfig.validate_toml(tomllib.loads((EXAMPLE / "configs" / "rl.toml").read_text()))
PIN = "reasoning-gym==0.1.25"
FILES = {
    path.relative_to(EXAMPLE).as_posix(): path.read_text()
    for path in (EXAMPLE / "environment.py", *(EXAMPLE / "dataset").iterdir())
}


def numbers(split: str) -> set[str]:
    return {json.loads(line)["input"] for line in FILES[f"dataset/{split}.jsonl"].splitlines()}


TRAIN, EVAL = numbers("train"), numbers("eval")


def test_no_puzzle_is_both_learned_and_held_out() -> None:
    assert (len(TRAIN), len(EVAL)) == (256, 64)
    assert not TRAIN & EVAL


@pytest.mark.parametrize("file", ["Makefile", "examples/reasoning/README.md"])
def test_the_package_is_pinned_to_one_version(file: str) -> None:
    assert CONFIG.environment.pip == (PIN,)
    pins = re.findall(r"reasoning-gym[=<>~]=\S+", (ROOT / file).read_text())
    assert set(pins) == {PIN}


@pytest.fixture
def puzzles() -> Any:
    """The environment's own puzzles."""
    code = runpy.run_path(str(EXAMPLE / "environment.py"))
    return code["load_environment"](**CONFIG.environment.params).puzzles


@pytest.mark.slow
def test_the_environment_passes_its_check() -> None:
    task = EnvCheckTask(
        folder=str(EXAMPLE),
        split="train",
        params=dict(CONFIG.environment.params),
        scored=20,
        held_out="eval",
        held_out_required=True,
    )

    result = run_env_check(task, 120, {})

    run = PlannedRun(CONFIG.algorithm, False, CONFIG.train.max_tokens, CONFIG.train.max_length)
    assert assess(result, run) == []
    assert len(result.rows) == 256
    assert all(row.gold.score == 1 for row in result.rows[:20] if row.gold)


@pytest.mark.slow
def test_no_held_out_question_is_asked_in_training(puzzles: Any) -> None:
    learned, held_out = (
        {puzzles[int(number)]["question"] for number in split} for split in (TRAIN, EVAL)
    )
    assert not learned & held_out
