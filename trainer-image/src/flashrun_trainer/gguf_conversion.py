"""Turn a GGUF file into a folder that can be trained: ``python -m … FILE FOLDER``.

``flash model push`` runs it in a process of its own, because it needs PyTorch; the trainer image
has what it needs. A problem of the file is one line on standard error and exit code 1.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

SHARD_SIZE: Final = "2GB"
"""Largest file of weights: an interrupted upload repeats a file, and not the whole model."""


class ConversionRefused(Exception):
    """The file cannot be converted; the message is one sentence."""


def convert(file: Path, folder: Path) -> None:
    """Write the model in ``file`` to ``folder``, with weights in bfloat16.

    The folder appears complete or not at all.

    Raises:
        ConversionRefused: the file is not a GGUF file, its architecture is not known, or its
            tokenizer has no chat template.
    """
    import torch

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        written = Path(scratch) / "model"
        tokenizer, model = _load(file)
        if not tokenizer.chat_template:
            raise ConversionRefused(
                f"{file.name} has no chat template: take the file of an instruction-tuned model"
            )
        model.to(torch.bfloat16).save_pretrained(written, max_shard_size=SHARD_SIZE)
        tokenizer.save_pretrained(written)
        written.rename(folder)


def _load(file: Path) -> tuple[Any, Any]:
    """Return the tokenizer and the model of a GGUF file, with unpacked weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        # Without this, the weights are unpacked all the same, but the model cannot be saved.
        unpacked = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**where, quantization_config=unpacked)
    except Exception as error:  # what the libraries raise for a broken file is not documented
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConversionRefused(f"{file.name} cannot be converted: {why}") from error
    # The saved weights are plain ones.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return tokenizer, model


def main(file: str, folder: str) -> int:
    """Convert a file; return the exit code."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        convert(Path(file).resolve(), Path(folder).resolve())
    except ConversionRefused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
