"""The programs that merge and convert, and what is said when one of them is missing."""

import importlib.util
import stat
import sys
from pathlib import Path

import pytest

from flashrun.cli.models import merging
from flashrun.cli.models.handoff_files import MergedModel
from flashrun.cli.output.failure import Failure, UsageFailure


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Python that merges: a script, which a test writes."""
    path = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def play(python: Path, script: str) -> None:
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)


def test_without_pytorch_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else name)

    with pytest.raises(UsageFailure, match="--merged needs peft, which") as refused:
        merging.check_libraries()
    assert "pip install 'flashrun[models]'" in refused.value.hint
    assert "python -m flashrun_trainer.merged_model BASE ADAPTER FOLDER" in refused.value.hint


def test_the_converter_of_llama_cpp_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(UsageFailure, match=r"--gguf needs llama.cpp's convert_hf_to_gguf.py"):
        merging.find_converter(None)
    with pytest.raises(UsageFailure, match=r"is not a folder of llama.cpp"):
        merging.find_converter(tmp_path)
    (tmp_path / "convert_hf_to_gguf.py").touch()
    assert merging.find_converter(tmp_path) == tmp_path / "convert_hf_to_gguf.py"


def test_what_the_check_has_measured_is_the_last_line(python: Path, tmp_path: Path) -> None:
    measured = '{"tokens": 48, "same": 48, "difference": 0.001, "dtype": "float32"}'
    play(python, f"echo loading; echo '{measured}'")

    check = merging.merge(tmp_path, tmp_path, tmp_path / "merged")

    assert check == MergedModel(48, 48, 0.001, "float32")


def test_a_program_that_fails_is_reported_by_its_last_line(python: Path, tmp_path: Path) -> None:
    play(python, "echo a traceback >&2; echo 'it does not fit' >&2; exit 1")

    with pytest.raises(Failure, match=r"^it does not fit$"):
        merging.merge(tmp_path, tmp_path, tmp_path / "merged")
    with pytest.raises(Failure, match=r"^convert_hf_to_gguf.py: it does not fit$"):
        merging.convert(tmp_path / "convert_hf_to_gguf.py", tmp_path, tmp_path / "model.gguf")


def test_what_the_converter_wrote_has_to_be_a_gguf_file(python: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    play(python, f'printf "GGUF" > {file}')
    merging.convert(tmp_path / "convert_hf_to_gguf.py", tmp_path, file)
    play(python, f'printf "text" > {file}')

    with pytest.raises(Failure, match="wrote no GGUF file"):
        merging.convert(tmp_path / "convert_hf_to_gguf.py", tmp_path, file)
