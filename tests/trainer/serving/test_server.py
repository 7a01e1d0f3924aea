"""What the container of a server starts."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun.api.served import ServedAdapter, ServedList
from flashrun_trainer.init import model_download
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.serving import server
from tests.trainer.pods import TrainerPod, Workshop, resolved


def served(*ranks: int) -> ServedList:
    return ServedList(
        adapters=tuple(
            ServedAdapter(id=f"run/step-{rank}", prefix="p/", manifest="0" * 64, rank=rank)
            for rank in ranks
        )
    )


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainerPod:
    """A pod of a server of vLLM whose base model is there."""
    from flashrun.api.records import StorageAccess

    access = StorageAccess(endpoint="http://s3.invalid", bucket="b", access_key="a", secret_key="s")
    pod = TrainerPod(Workshop(tmp_path, access), resolved(), 1)
    pod.write_files()
    (tmp_path / "adapters.json").write_text(served(8, 48).model_dump_json())
    monkeypatch.setenv("FLASHRUN_SERVED", str(tmp_path / "adapters.json"))
    monkeypatch.setenv("FLASHRUN_ENGINE", "vllm")
    monkeypatch.setattr(model_download, "run", lambda _: None)
    return pod


def test_vllm_serves_the_base_model_with_room_for_the_largest_adapter(
    pod: TrainerPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    class Replaced(Exception):
        """The process is another program now."""

    def execute(*given: Any) -> None:
        started.extend(given)
        raise Replaced

    monkeypatch.setattr(os, "execvpe", execute)
    monkeypatch.setenv("FLASHRUN_GPUS", "4")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(Replaced):
        server.run(pod.inside)

    program, command, variables = started
    folder = str(pod.inside.model_folder(pod.run))
    assert (program, command[:4]) == ("vllm", ["vllm", "serve", folder, "--enable-lora"])
    assert " ".join(command[4:]) == (
        "--served-model-name flashrun/tiny-qwen3 --port 8000 --max-lora-rank 64 --max-loras 2 "
        "--tensor-parallel-size 4"
    )
    assert variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"


def test_an_image_without_vllm_says_what_to_build_and_downloads_nothing(
    pod: TrainerPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(model_download, "run", lambda _: pytest.fail("it was downloaded"))

    with pytest.raises(TrainerError) as error:
        server.run(pod.inside)

    assert error.value.code is Exit.CONFIG
    assert "this image has no vLLM" in error.value.message
    assert "--engine transformers" in error.value.hint


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapters.json").write_text('{"adapters": [{"id": 1}]}')

    with pytest.raises(TrainerError, match=r"the list of adapters .* cannot be read"):
        server.read_list(tmp_path / "adapters.json")
