"""Folders of models that are small enough to write in a test."""

import json
from pathlib import Path
from typing import Any

CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}
TOKENIZER = {"chat_template": "{{ messages }}", "eos_token": "</s>"}


def weights(*tensors: str, numbers: int = 6) -> bytes:
    """Return a safetensors file of tensors of 2-byte numbers."""
    size = 2 * numbers
    header: dict[str, Any] = {
        name: {"dtype": "BF16", "shape": [numbers], "data_offsets": [place, place + size]}
        for name, place in zip(tensors, range(0, size * len(tensors), size), strict=True)
    }
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    return len(text).to_bytes(8, "little") + text + b"\x01" * size * len(tensors)


def write_model(folder: Path, **changed: bytes | None) -> Path:
    """Write a model that can be trained; ``changed`` files replace others, None leaves them out.

    A name's ``__`` stands for a dot, as in ``config__json``.
    """
    files: dict[str, bytes | None] = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": json.dumps(TOKENIZER).encode(),
        "model.safetensors": weights("a", "b"),
    }
    files |= {name.replace("__", "."): data for name, data in changed.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder
