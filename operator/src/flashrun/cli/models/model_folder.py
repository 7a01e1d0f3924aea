"""Reads a folder of a model: names, JSON files, and the headers of its weights."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from flashrun.plan.model_check import ModelFiles, WeightsFile

_LENGTH_BYTES: Final = 8
_HEADER_LIMIT: Final = 100 * 1024 * 1024
"""Longest header of a safetensors file; the format's own libraries refuse longer ones."""
_JSON_LIMIT: Final = 256 * 1024 * 1024
"""Longest JSON file that is read; a tokenizer has some 20 MB."""


class _ReadFile(NamedTuple):
    """The content of a file, or why it could not be read."""

    content: Any = None
    problem: str = ""


def read_model_folder(folder: Path) -> ModelFiles:
    """Return what is in ``folder`` itself; folders below it belong to other programs."""
    paths = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    documents = _read(paths, ".json", _read_json)
    weights = _read(paths, ".safetensors", read_weights_header)
    template = paths.get("chat_template.jinja")
    return ModelFiles(
        sizes={name: path.stat().st_size for name, path in paths.items()},
        documents={name: read.content for name, read in documents.items() if not read.problem},
        weights={name: read.content for name, read in weights.items() if not read.problem},
        broken={
            name: read.problem for name, read in {**documents, **weights}.items() if read.problem
        },
        template=template.read_text(encoding="utf-8", errors="replace") if template else "",
    )


def _read(
    paths: dict[str, Path], suffix: str, read: Callable[[Path], object]
) -> dict[str, _ReadFile]:
    return {name: _attempt(read, path) for name, path in paths.items() if name.endswith(suffix)}


def _attempt(read: Callable[[Path], object], path: Path) -> _ReadFile:
    try:
        return _ReadFile(read(path))
    except (ValueError, RecursionError) as error:
        return _ReadFile(problem=str(error) if type(error) is ValueError else "is not valid JSON")


def _read_json(path: Path) -> Any:
    if path.stat().st_size > _JSON_LIMIT:
        raise ValueError(f"is longer than {_JSON_LIMIT // 2**20} MiB")
    return json.loads(path.read_bytes())


def read_weights_header(path: Path) -> WeightsFile:
    """Return what the header of a safetensors file says.

    The format: eight bytes with the length of the header, the header as JSON, the tensors.

    Raises:
        ValueError: the file is not a whole safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 2 <= length <= min(_HEADER_LIMIT, size - _LENGTH_BYTES):
            raise ValueError("is not a safetensors file, or was cut off in its header")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise ValueError("is not a safetensors file: its header is not JSON") from None
    tensors = dict(header) if isinstance(header, dict) else {}
    tensors.pop("__metadata__", None)
    try:
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
        parameters = sum(math.prod(map(int, tensor["shape"])) for tensor in tensors.values())
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise ValueError("is not a safetensors file: its header lists no tensors") from None
    if size != _LENGTH_BYTES + length + end:
        raise ValueError(
            f"has {size} bytes, and its header says {_LENGTH_BYTES + length + end}: "
            "it was not copied as a whole"
        )
    return WeightsFile(frozenset(tensors), parameters)
