"""Turn a GGUF file into a folder that can be trained: ``python -m … FILE FOLDER``.

``flash model push`` runs it in a process of its own, because it needs PyTorch; the trainer image
has what it needs. A problem of the file is one line on standard error and exit code 1.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

SHARD_SIZE: Final = "2GB"
"""Largest file of weights: an interrupted upload repeats a file, and not the whole model."""

_LLAMA3: Final = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""How Llama 3.1, 3.2 and 3.3 scale positions; their ``factor`` is 8 or 32."""
_DIVISORS: Final = "rope_freqs.weight"
"""Tensor of a GGUF file: what each frequency is divided by, float32 of half a head's size."""
_SCALING_TENSORS: Final = ("rope_freqs.", "rope_factors_")
"""Beginnings of the names of all such tensors."""

_SINGLE_DIGITS: Final = frozenset(
    ("codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder")
)
"""Names in ``tokenizer.ggml.pre`` for which llama.cpp splits off each digit, then as GPT-2 does."""
_AS_GPT2: Final = frozenset(
    ("exaone4", "gpt-2", "granite-docling", "jais", "mpt", "olmo", "phi-2", "trillion")
)
"""Names for which it splits as GPT-2 does."""
_WHOLE_WORDS: Final = frozenset(
    (
        "falcon-h1",
        "falcon3",
        "lfm2",
        "llama-bpe",
        "llama-v3",
        "llama3",
        "midm-2.0",
        "pixtral",
        "tekken",
    )
)
"""Names for which a word that is a token stays whole, whatever merges would make of it."""


class ConversionRefused(Exception):
    """The file cannot be converted; the message is one sentence."""


def convert(file: Path, folder: Path) -> None:
    """Write the model in ``file`` to ``folder``, with weights in bfloat16.

    The folder appears complete or not at all.

    Raises:
        ConversionRefused: the file is not a GGUF file, its architecture or the way in which it
            scales positions or splits text is not known, or its tokenizer has no chat template.
    """
    import torch
    from gguf import GGUFReader

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        written = Path(scratch) / "model"
        tokenizer, model = _load(file)
        if not tokenizer.chat_template:
            raise ConversionRefused(
                f"{file.name} has no chat template: take the file of an instruction-tuned model"
            )
        reader = GGUFReader(file)
        _restore_split(file, reader.fields, tokenizer)
        _restore_position_scaling(file, reader, model.config)
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


def _restore_split(file: Path, fields: Mapping[str, Any], tokenizer: Any) -> None:
    """Let ``tokenizer`` split text before it merges bytes as the file says.

    transformers splits as GPT-2 does where it does not know the name of a split, and merges words
    that are tokens by themselves. Other tokens than the model has learned follow, such as two line
    feeds instead of one token before a digit.

    Raises:
        ConversionRefused: the file does not name its split, or it is not known here either.
    """
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if fields["tokenizer.ggml.model"].contents() != "gpt2":
        return  # the name of GGUF for byte-level tokens; others are split by transformers alone
    named = fields.get("tokenizer.ggml.pre")
    name = named.contents() if named is not None else ""
    if name in _WHOLE_WORDS:
        backend.model.ignore_merges = True
    split = json.loads(backend.to_str())["pre_tokenizer"] or {}
    if not (split.get("type") == "ByteLevel" and split["use_regex"]):
        return  # transformers knows the split
    if name in _SINGLE_DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    elif name not in _AS_GPT2:
        why = (
            f"splits text in the way {name!r}, which transformers does not read"
            if name
            else "does not say how it splits text (tokenizer.ggml.pre)"
        )
        raise ConversionRefused(
            f"{file.name} {why}: push the model's folder with safetensors files, or its id on the "
            "hub"
        )


def _restore_position_scaling(file: Path, reader: Any, config: Any) -> None:
    """Put the scaling of rotary positions into ``config``, where transformers has left it out.

    Raises:
        ConversionRefused: the positions are scaled in another way than those of Llama 3.1.
    """
    import numpy as np

    rope = getattr(config, "rope_parameters", None) or {}
    # Models with several kinds of attention have such a table for each of them.
    tables = [table for table in rope.values() if isinstance(table, dict)] or [rope]
    if any(table.get("rope_type", "default") != "default" for table in tables):
        return  # transformers knows the scaling of this architecture
    architecture = reader.fields["general.architecture"].contents()
    kind = reader.fields.get(f"{architecture}.rope.scaling.type")
    scaling = {
        tensor.name: tensor.data
        for tensor in reader.tensors
        if tensor.name.startswith(_SCALING_TENSORS)
    }
    if kind is not None and kind.contents() != "none":
        scaling[kind.name] = kind.contents()
    if not scaling:
        return
    if list(scaling) == [_DIVISORS] and architecture == "llama":
        supposed = {**rope, **_LLAMA3, "factor": float(scaling[_DIVISORS].max())}
        if np.allclose(_divisors(config, supposed), scaling[_DIVISORS], rtol=1e-3):
            config.rope_parameters = supposed
            return
    raise ConversionRefused(
        f"{file.name} scales rotary positions ({', '.join(sorted(scaling))}), which transformers "
        "does not read: push the model's folder with safetensors files, or its id on the hub"
    )


def _divisors(config: Any, rope: dict[str, Any]) -> Any:
    """Return what ``rope`` divides each frequency by, in the order of the frequencies."""
    import numpy as np
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = deepcopy(config)
    scaled.rope_parameters = rope
    frequencies = ROPE_INIT_FUNCTIONS[rope["rope_type"]](scaled)[0].numpy()
    plain = rope["rope_theta"] ** -(np.arange(len(frequencies)) / len(frequencies))
    return plain / frequencies


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
