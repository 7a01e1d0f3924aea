"""Which adapters a server serves: the list in its ConfigMap, which every pod of it reads.

The list pins each adapter by the SHA-256 of its manifest, and the manifest lists the SHA-256 of
each file. So a pod that starts again serves the same adapters, byte by byte, or refuses them.
"""

from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Final, NamedTuple

from pydantic import Field, StringConstraints

from flashrun.api.adapter_use import CONFIG_FILE
from flashrun.api.base import Record
from flashrun.api.bounds import Count
from flashrun.api.records import FileEntry, Manifest

ADAPTERS_LIMIT: Final = 2048
"""Most adapters of one server: a ConfigMap holds 1 MiB."""


class ServingEngine(StrEnum):
    """What answers the requests."""

    VLLM = "vllm"
    """vLLM, on GPUs; the trainer image has to be built with it."""
    TRANSFORMERS = "transformers"
    """The trainer image's own small server on transformers and PEFT, also without a GPU."""


class ServedAdapter(Record):
    """One adapter, pinned."""

    id: str
    """Model id of requests: the reference of the adapter."""
    prefix: str
    """Storage prefix with the manifest."""
    manifest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the manifest."""
    rank: Count


class ServedList(Record):
    """The adapters of one base model that a server serves, in the order of its list."""

    max_bytes = 1024 * 1024
    max_values = 16384

    adapters: Annotated[tuple[ServedAdapter, ...], Field(max_length=ADAPTERS_LIMIT)]

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max((adapter.rank for adapter in self.adapters), default=0)

    def get(self, model_id: str) -> ServedAdapter | None:
        """Return the adapter with this model id."""
        return next((adapter for adapter in self.adapters if adapter.id == model_id), None)


class AdapterFiles(NamedTuple):
    """The files of an adapter among those that its manifest lists."""

    folder: PurePosixPath
    """Their folder below the manifest."""
    files: tuple[FileEntry, ...]


def adapter_files(manifest: Manifest) -> AdapterFiles | None:
    """Return the files beside the adapter's config; None without a config.

    A checkpoint keeps its adapter one level down, beside the state of the trainer.
    """
    paths = (PurePosixPath(file.path) for file in manifest.files)
    folder = next((path.parent for path in paths if path.name == CONFIG_FILE), None)
    if folder is None:
        return None
    own = (file for file in manifest.files if PurePosixPath(file.path).is_relative_to(folder))
    return AdapterFiles(folder, tuple(own))
