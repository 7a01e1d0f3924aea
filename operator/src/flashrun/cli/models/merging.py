"""A merged model and its GGUF file, made by programs that have PyTorch, which this one has not."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flashrun.cli.models.handoff_files import MergedModel
from flashrun.cli.new_folder import expanded
from flashrun.cli.output.failure import Failure, UsageFailure

MERGING: Final = "flashrun_trainer.merged_model"
CONVERTER: Final = "convert_hf_to_gguf.py"
"""The program of llama.cpp that writes GGUF files; it is in its repository and in no package."""
GGUF_FILE: Final = "model.gguf"
_NEEDED: Final = ("torch", "transformers", "peft")
_EXTRA: Final = "pip install 'flashrun[models]'"


def check_libraries() -> None:
    """Raise ``UsageFailure`` if this Python cannot merge; nothing has been downloaded yet."""
    if missing := [name for name in _NEEDED if not importlib.util.find_spec(name)]:
        raise UsageFailure(
            f"--merged needs {', '.join(missing)}, which this Python does not have",
            f"{_EXTRA}; or flash export without --merged, and run python -m {MERGING} BASE ADAPTER "
            "FOLDER in the trainer image",
        )


def find_converter(llama_cpp: Path | None) -> Path:
    """Return llama.cpp's converter; raises ``UsageFailure`` when it is not in the folder."""
    if llama_cpp is None:
        raise UsageFailure(
            f"--gguf needs llama.cpp's {CONVERTER}, which no package of the index has",
            "clone llama.cpp and name its folder: --llama-cpp FOLDER",
        )
    converter = expanded("--llama-cpp", str(llama_cpp)) / CONVERTER
    if not converter.is_file():
        raise UsageFailure(
            f"{llama_cpp} is not a folder of llama.cpp: it has no {CONVERTER}",
            "name the folder into which llama.cpp was cloned",
        )
    return converter


def merge(base: Path, adapter: Path, folder: Path) -> MergedModel:
    """Write the merged model to ``folder``, and return what its check has measured.

    Raises:
        Failure: the adapter does not fit, or the merged model does not answer as PEFT's.
    """
    printed = _run([sys.executable, "-m", MERGING, str(base), str(adapter), str(folder)])
    return MergedModel(**json.loads(printed.splitlines()[-1]))


def convert(converter: Path, merged: Path, file: Path) -> None:
    """Write the GGUF file of a merged model, in the 16-bit type that llama.cpp chooses for it.

    Raises:
        Failure: llama.cpp cannot convert this model.
    """
    _run(
        [sys.executable, str(converter), str(merged), "--outfile", str(file), "--outtype", "auto"],
        f"{CONVERTER}: ",
    )
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise Failure(f"{CONVERTER} wrote no GGUF file")


def _run(command: Sequence[str], who: str = "") -> str:
    """Return what a program prints; raises ``Failure`` with its last line when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        raise Failure(f"{who}{lines[-1]}")
    return done.stdout
