"""The card beside an adapter, as Markdown sees it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.catalog import Source
from flashrun.api.records import Progress, ResolvedRun
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.records import model_card
from tests.trainer.pods import TrainerPod, resolved


def test_every_row_of_its_tables_has_two_cells_whatever_is_in_them(tmp_path: Path):
    run = resolved("grpo", stop_sequences=("<|im_end|>", "\n\n"))
    progress = Progress(step=3, total_steps=3, metrics={"env/a|b": 0.5})
    (tmp_path / "adapter_config.json").write_text('{"r": 8, "target_modules": []}')
    model_card.write_model_card(tmp_path, run, 3, progress, Environment(None, [], ""))
    text = (tmp_path / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert r"| stop_sequences | ['<\|im_end\|>', '\n\n'] |" in rows
    assert r"| env/a\|b | 0.5 |" in rows


@pytest.mark.parametrize(
    ("config", "source", "lines"),
    [
        (
            {"auto_mapping": None, "r": 24, "target_modules": ["q_proj"]},
            Source.HUB,
            (
                "from transformers import AutoModelForCausalLM, AutoTokenizer",
                'base, revision = "org/model", "abc"',
                "model = AutoModelForCausalLM.from_pretrained(base, revision=revision)",
                "vllm serve org/model --enable-lora --max-lora-rank 32 --lora-modules run-1=.",
                "python -m sglang.launch_server --model-path org/model --enable-lora "
                "--lora-paths run-1=.",
            ),
        ),
        (
            {
                "auto_mapping": {"base_model_class": "OtherClass"},
                "r": 1024,
                "target_modules": ["in_proj_qkv"],
            },
            Source.MIRROR,
            (
                "from transformers import AutoTokenizer, OtherClass",
                'base = "org/model"  # its folder',
                "model = OtherClass.from_pretrained(base)",
                "# no server that we know takes it; merge it with PEFT",
            ),
        ),
    ],
    ids=["hub", "mirror"],
)
def test_a_card_shows_how_to_load_the_adapter_onto_the_class_that_was_trained(
    tmp_path: Path, config: dict[str, Any], source: Source, lines: tuple[str, ...]
):
    run = resolved("sft")
    base = run.model.replace(id="org/model", source=source, revision="abc")
    run = run.replace(model=base, run=run.run.replace(name="run-1"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    model_card.write_model_card(tmp_path, run, 3, None, Environment(None, [], ""))
    card = (tmp_path / "README.md").read_text().splitlines()
    assert [line for line in lines if line not in card] == []


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
