"""The card beside an adapter, as Markdown sees it."""

import re
from pathlib import Path

import pytest

from flashrun.api.records import Progress, ResolvedRun
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.records import model_card
from tests.trainer.pods import TrainerPod, resolved


def test_every_row_of_its_tables_has_two_cells_whatever_is_in_them(tmp_path: Path):
    run = resolved("grpo", stop_sequences=("<|im_end|>", "\n\n"))
    progress = Progress(step=3, total_steps=3, metrics={"env/a|b": 0.5})
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    model_card.write_model_card(tmp_path, run, 3, progress, Environment(None, [], ""))
    text = (tmp_path / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert r"| stop_sequences | ['<\|im_end\|>', '\n\n'] |" in rows
    assert r"| env/a\|b | 0.5 |" in rows


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_an_adapter_brings_its_card_its_spec_and_its_packages(sft_run: TrainerPod):
    card = sft_run.published("README.md").decode()
    for fact in (
        "base_model: flashrun/tiny-qwen3",
        f"| environment package, SHA-256 | {sft_run.run.environment.digest} |",
        "| examples of split train | 128 |",
        "| examples, SHA-256 | ",
        "| adapter at the start | fresh |",
        "| seed | 42 |",
        "| learning_rate | 0.005 |",
        "| loss | ",
    ):
        assert fact in card
    assert ResolvedRun.model_validate_json(sft_run.published("run.json")) == sft_run.run
    packages = sft_run.published("packages.txt").decode().splitlines()
    assert {"torch", "transformers", "trl", "peft"} <= {line.split("==")[0] for line in packages}
