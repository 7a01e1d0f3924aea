"""The script of examples/arithmetic that compares a model with its adapters."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.pods import ROOT

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]
EXAMPLE = ROOT / "examples" / "arithmetic"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script, which reads three of the held-out rows."""
    script = runpy.run_path(str(EXAMPLE / "compare.py"))
    read = script["read_example"]

    def read_three() -> tuple[list[Any], Any]:
        rows, environment = read()
        return rows[:3], environment

    script["main"].__globals__["read_example"] = read_three
    return script


def test_an_adapter_that_changes_nothing_gives_the_answers_of_the_base_model(
    script: dict[str, Any], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
    script["main"](str(tiny_model), f"same={tmp_path}", f"again={tmp_path}")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert list(found) == ["base", "same", "again"]
    assert found["base"] == found["same"] == found["again"]
    assert set(found["base"]["metrics"]) == {"format", "accuracy"}
    assert len(found["base"]["examples"]) == 3


def test_no_held_out_sum_is_trained_on() -> None:
    train, held_out = (
        {
            json.loads(line)["input"]
            for line in (EXAMPLE / "dataset" / name).read_text().splitlines()
        }
        for name in ("train.jsonl", "eval.jsonl")
    )
    assert (len(train), len(held_out)) == (256, 64)
    assert not train & held_out


@pytest.mark.parametrize(
    ("answer", "score"),
    [("46", 1.0), (" 46\n", 1.0), ("45", 0.2), ("-3", 0.2), ("The sum is 46.", 0.0), ("", 0.0)],
)
def test_a_number_scores_less_than_the_right_one_and_more_than_a_sentence(
    answer: str, score: float
) -> None:
    from freesolo.datasets import TaskExample

    environment = runpy.run_path(str(EXAMPLE / "environment.py"))["load_environment"]()
    row = TaskExample(record={}, input="What is 12 + 34?", output="46")
    assert environment.score_response(row, answer).score == score
