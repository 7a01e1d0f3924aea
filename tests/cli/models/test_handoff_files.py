"""What goes with an adapter that leaves the platform."""

import json
import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.records import CheckpointEvaluation, Manifest
from flashrun.cli.models.handoff_files import (
    HandOff,
    MergedModel,
    check_adapter,
    write_handoff_files,
)
from flashrun.cli.output.failure import Failure
from tests.cli.models.models import weights
from tests.cli.storage import ADAPTER_CONFIG, adapter_weights
from tests.plan.worlds import running

RUN = running().pinned


def write_adapter(folder: Path, config: Any = ADAPTER_CONFIG, data: bytes | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(data or adapter_weights())
    return folder


def hand_off(**changes: Any) -> HandOff:
    assert RUN is not None
    score = CheckpointEvaluation(metric="score", score=0.6)
    manifest = Manifest(
        kind="checkpoint", step=5, evaluation=score, created=datetime.now(UTC), files=()
    )
    return HandOff("run/step-5", RUN, manifest)._replace(**changes)


def weights_header(text: str) -> bytes:
    """A safetensors file with this header, and no weights."""
    return len(text).to_bytes(8, "little") + text.encode()


LAYERS = "base_model.model.layers.0.q_proj"


@pytest.mark.parametrize(
    ("config", "data", "words"),
    [
        (ADAPTER_CONFIG, adapter_weights()[:-1], "it was not copied as a whole"),
        (ADAPTER_CONFIG, b"no weights", "not a safetensors file"),
        (ADAPTER_CONFIG, weights(f"{LAYERS}.lora_A.weight"), "not pairs of lora_A and lora_B"),
        (ADAPTER_CONFIG | {"peft_type": "IA3"}, adapter_weights(), "does not describe a LoRA"),
        ([], adapter_weights(), "does not describe a LoRA"),
        (ADAPTER_CONFIG, weights_header('{"a": {"data_offsets": [0, 1e400]}}'), "lists no tensors"),
    ],
)
def test_what_peft_could_not_load_is_refused(
    tmp_path: Path, config: Any, data: bytes, words: str
) -> None:
    with pytest.raises(Failure, match=words):
        check_adapter(write_adapter(tmp_path / "adapter", config, data))


def test_card_note_and_digests_go_with_the_adapter(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    (folder / "README.md").write_text("# of the trainer\n")

    digest = write_handoff_files(folder, check_adapter(folder), hand_off(licence="apache-2.0"))

    card = (folder / "README.md").read_text()
    assert RUN is not None
    for words in (
        f'base_model: "{RUN.model.id}"',
        'base_model_relation: "adapter"',
        'license: "apache-2.0"',
        "| step | 5 |",
        "| score | 0.6 |",
        "PeftModel.from_pretrained",
        "--enable-lora --max-lora-rank 32",
    ):
        assert words in card, words
    assert (folder / "TRAINING.md").read_text() == "# of the trainer\n"
    note = (folder / "LICENSE-NOTE.md").read_text()
    assert "This adapter changes" in note
    assert "`apache-2.0`" in note
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 0
    assert len((folder / "SHA256SUMS").read_text().splitlines()) == 5
    assert len(digest) == 64
    (folder / "adapter_model.safetensors").write_bytes(b"others")
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    ("gguf", "words"),
    [(False, 'AutoModelForCausalLM.from_pretrained(".")'), (True, "llama-cli -m model.gguf")],
)
def test_the_card_of_a_merged_model_says_how_it_was_checked(
    tmp_path: Path, gguf: bool, words: str
) -> None:
    check = MergedModel(48, 47, 0.00123, "bfloat16")

    write_handoff_files(tmp_path, ADAPTER_CONFIG, hand_off(merged=check, gguf=gguf))

    card = (tmp_path / "README.md").read_text()
    assert words in card
    assert (
        "(bfloat16): 47 of 48 greedy tokens as with PEFT, log-probabilities within 0.00123" in card
    )
    note = (tmp_path / "LICENSE-NOTE.md").read_text()
    assert "These weights contain those of" in note
    assert "chose no licence" in note


def test_a_config_that_nests_too_deep_is_refused(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    (folder / "adapter_config.json").write_text("[" * 100_000)

    with pytest.raises(Failure, match="its config nests too deep"):
        check_adapter(folder)


def test_the_card_is_utf_8_in_every_locale(tmp_path: Path) -> None:
    assert RUN is not None
    model = RUN.model.model_copy(update={"id": "org/mödel"})
    given = hand_off(run=RUN.model_copy(update={"model": model}))
    folder = write_adapter(tmp_path / "adapter")
    (tmp_path / "given.pickle").write_bytes(pickle.dumps((folder, ADAPTER_CONFIG, given)))
    program = (
        "import pathlib, pickle, sys\n"
        "from flashrun.cli.models.handoff_files import write_handoff_files\n"
        "write_handoff_files(*pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()))\n"
    )
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    subprocess.run(
        [sys.executable, "-c", program, tmp_path / "given.pickle"],
        env={**os.environ, **variables},
        check=True,
    )

    assert "org/mödel" in (folder / "README.md").read_text("utf-8")
    assert "org/mödel" in (folder / "LICENSE-NOTE.md").read_text("utf-8")
