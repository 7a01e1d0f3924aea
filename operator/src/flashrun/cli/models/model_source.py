"""Where a pushed model comes from: a folder, a GGUF file, or the hub.

A GGUF file is converted and the hub is read by libraries that the command line does not need
otherwise. They are looked for in this Python, and the sentence says how to install them.
"""

import contextlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from flashrun.api.catalog import Source
from flashrun.api.public import PublicPlatform
from flashrun.api.records import ResolvedModel
from flashrun.api.trainable_models import MODEL_FILES
from flashrun.cli.new_folder import expanded
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure, NotFoundFailure, UsageFailure
from flashrun.hub_waits import bound_hub_waits

CONVERSION: Final = "flashrun_trainer.gguf_conversion"
_HUB_ID: Final = re.compile(r"(?P<id>[A-Za-z0-9._-]+/[A-Za-z0-9._-]+)(@(?P<revision>[\w./-]+))?")
_EXTRA: Final = "pip install 'flashrun[models]'"


def refuse_unreadable_mirror(platform: PublicPlatform | None, model: ResolvedModel) -> None:
    """Raise ``Failure`` if ``model`` is in a mirror whose weights people may not read."""
    if model.source is Source.MIRROR and not (platform and platform.mirror_readable):
        raise Failure(
            f"{model.id} is in the platform's model mirror, and you may not read its weights",
            "ask the platform's administrator to set mirrorReadable in the chart's values",
        )


@contextlib.contextmanager
def open_source(source: str) -> Iterator[Path]:
    """Yield the folder of the model that ``source`` names; a converted one is removed again.

    Raises:
        NotFoundFailure: there is no such folder, file or model.
        UsageFailure: a library is missing, or the file cannot be converted.
    """
    path = expanded("SOURCE", source)
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="flash-model-") as scratch:
        folder = Path(scratch) / "model"
        if path.is_file():
            _convert(path, folder)
        elif match := _HUB_ID.fullmatch(source):
            download(match["id"], match["revision"], folder)
        else:
            raise NotFoundFailure(
                f"there is no folder or file {source}",
                "give the folder of a model, a GGUF file, or an id of the hub as ORG/NAME",
            )
        yield folder


def _convert(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file to ``folder``, in a process that has PyTorch."""
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise UsageFailure(
                f"{file} is not a GGUF file", "give the folder of a model, or a GGUF file"
            )
    missing = [
        name for name in ("torch", "transformers", "gguf") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise UsageFailure(
            f"converting {file.name} needs {', '.join(missing)}, which this Python does not have",
            f"{_EXTRA}; or run python -m {CONVERSION} FILE FOLDER in the trainer image, and push "
            "the folder",
        )
    terminal.say(f"converting {file.name} to safetensors")
    command = [sys.executable, "-m", CONVERSION, str(file.resolve()), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        raise UsageFailure(lines[-1])


def download(model: str, revision: str | None, folder: Path) -> None:
    """Download a model from the hub, as far as it is needed for training."""
    if not importlib.util.find_spec("huggingface_hub"):
        raise UsageFailure(
            f"there is no folder {model}, and downloading it from the hub needs huggingface_hub, "
            "which this Python does not have",
            _EXTRA,
        )
    from huggingface_hub import snapshot_download

    try:
        bound_hub_waits()
    except ImportError:
        raise UsageFailure("this Python's huggingface_hub is older than 1.0", _EXTRA) from None
    terminal.say(f"downloading {model} from the hub")
    try:
        snapshot_download(
            model, revision=revision, local_dir=folder, allow_patterns=list(MODEL_FILES)
        )
    except Exception as error:  # the library also raises errors of the HTTP client beneath it
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Failure(
            f"{model} was not downloaded from the hub: {why}",
            "check the id, and HF_ENDPOINT and HF_TOKEN of your shell",
        ) from None
