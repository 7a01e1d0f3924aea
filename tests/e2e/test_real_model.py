"""SmolLM2 learns sums in a real pod, and what it has learned is there without the platform, too."""

import json
from pathlib import Path
from typing import Any

import pytest

from localcluster import real_model
from tests.e2e.conftest import JOB_SECONDS, ROOT, Product

pytestmark = pytest.mark.e2e

EXAMPLE = ROOT / "examples" / "arithmetic"
STEPS = 16
"""Of the config: each example once."""
MARGIN = 0.25
"""How much more of the held-out sums are right after training, at least; 0.61 were measured."""
GRPO_STEPS = 3
"""Half of those of the config of GRPO: an evaluation before them and one after."""
NOISE = 0.1
"""How much less of the held-out sums may be right after GRPO, which hardly changes it."""


@pytest.fixture(scope="module")
def trained(product: Product) -> str:
    """A run of SFT that has ended."""
    folder = real_model.prepare(product.local, product.steps)
    revision = ("--revision", real_model.REVISION)
    product.flash("model", "push", str(folder), "--id", real_model.MODEL, *revision)
    product.flash("env", "push", str(EXAMPLE), "--name", "examples/arithmetic")
    run = product.submit(EXAMPLE / "configs" / "sft.toml")
    product.end(run, "Succeeded", JOB_SECONDS)
    return run


def answers(product: Product, run: str, step: int) -> dict[str, dict[str, Any]]:
    """Return the answers of an evaluation by the question."""
    lines = product.flash("rollouts", run, "--eval", "--step", str(step)).stdout.splitlines()
    return {row["prompt"][-1]["content"]: row for row in map(json.loads, lines)}


def mean(metric: str, rows: dict[str, dict[str, Any]]) -> float:
    return sum(row["metrics"][metric] for row in rows.values()) / len(rows)


def test_held_out_accuracy_rises_from_nothing(product: Product, trained: str) -> None:
    before, after = (answers(product, trained, step) for step in (0, STEPS))

    assert len(before) == len(after) == 64
    assert mean("accuracy", before) == 0
    assert mean("accuracy", after) >= MARGIN
    assert mean("format", after) >= 0.9
    evaluation = product.status(trained)["evaluation"]
    assert evaluation["examples"] == 64
    assert float(evaluation["last"]["score"]) == pytest.approx(mean("accuracy", after), abs=1e-3)
    assert evaluation["best"]["step"] == STEPS


def test_grpo_keeps_what_sft_has_taught(product: Product, trained: str) -> None:
    changes = (f"train.init_from_adapter={trained}", f"train.steps={GRPO_STEPS}")
    run = product.submit(EXAMPLE / "configs" / "rl.toml", *changes)
    product.end(run, "Succeeded", JOB_SECONDS)

    before, after = answers(product, trained, STEPS), answers(product, run, GRPO_STEPS)
    assert answers(product, run, 0).keys() == before.keys()
    assert mean("accuracy", after) >= mean("accuracy", before) - NOISE
    assert mean("format", after) >= 0.9


def test_the_pulled_adapter_gives_the_same_answers_with_plain_peft(
    product: Product, trained: str, tmp_path: Path
) -> None:
    product.flash("pull", trained, str(tmp_path / "adapter"))
    files = {
        "compare_pulled.py": Path(__file__).with_name("compare_pulled.py"),
        "arithmetic": EXAMPLE,
        "adapter": tmp_path / "adapter",
    }
    words = ("python3", "compare_pulled.py", real_model.MODEL, real_model.REVISION)
    product.start_in_trainer_image("compare-pulled", files, *words)
    compared = json.loads(product.output_of("compare-pulled").splitlines()[-1])

    stored = answers(product, trained, STEPS)
    given = {row["question"]: row["answer"] for row in compared["pulled"]["examples"]}
    assert given.keys() == stored.keys()
    same = [given[question] == row["completion"].strip() for question, row in stored.items()]
    # Another batch rounds differently: a token that is as likely as another may change.
    assert sum(same) >= 62
    assert compared["base"]["metrics"]["accuracy"] == 0
