"""``flash export --merged`` as it is typed, in a Python that has PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flashrun.store import Store
from tests.trainer.architectures import save_random_model
from tests.trainer.pods import Workshop
from tests.trainer.test_merged_model import random_adapter

if TYPE_CHECKING:
    from tests.servers import Minio

pytestmark = [pytest.mark.handoff, pytest.mark.filterwarnings("default")]


def test_a_merged_model_is_exported_by_one_command_and_answers_alone(
    installed: Path, minio: "Minio", workshop: Workshop, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The trainer image, which has this file, has no tests of the command line.
    from tests.cli.conftest import serving
    from tests.cli.shell import ROOT, Shell
    from tests.cli.storage import commit_adapter, store_spec

    sources = f"{ROOT / 'operator/src'}:{ROOT / 'trainer-image/src'}"
    base = save_random_model("MiniCPM5", workshop, tiny_model)
    adapter = random_adapter(base, tmp_path / "trained", 0.2)
    store: Store = minio.store("export-of-a-merged-model")
    with serving(installed, store, tmp_path) as served:
        served.push()
        run = served.submit()
        prefix = store_spec(served, run)
        commit_adapter(served, run, prefix, saved=adapter)
        flash = Shell(tmp_path, served.flash.kubeconfig, {"PYTHONPATH": sources})

        done = flash.in_new_process(
            "export", run, "--merged", "--base", str(base), "--to", "merged"
        )

        assert done.returncode == 0, done.stderr
        assert done.stdout == "merged\n"
        assert "loaded again: 48 of 48 greedy tokens as with PEFT" in done.stderr
        assert f"# {run}\n" in (tmp_path / "merged" / "README.md").read_text()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "merged")("1 + 1", return_tensors="pt")
    assert model.generate(**tokens, max_new_tokens=4).shape[1] > tokens["input_ids"].shape[1]
