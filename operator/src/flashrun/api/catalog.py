"""Known base models and the recipes: every default of the config, in one place.

The numbers of the built-in models come from their published configurations; a platform adds its own
models in its settings. Recipe values follow the config reference that this project implements.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

from pydantic import Field

from flashrun.api.base import Section
from flashrun.api.config import LONGEST_SEQUENCE, Algorithm


class Thinking(StrEnum):
    """Whether a model can reason before it answers."""

    NONE = "none"
    HYBRID = "hybrid"
    ALWAYS = "always"


class Source(StrEnum):
    """Where the weights of a model come from."""

    HUB = "hub"
    MIRROR = "mirror"


class Model(Section):
    """One base model and its limits."""

    id: str = Field(min_length=1, max_length=128)
    """Identifier, as users write it."""
    parameters: float = Field(gt=0)
    """Size in billions of parameters."""
    thinking: Thinking = Thinking.HYBRID
    """Whether it can reason."""
    lora_rank_cap: int = Field(default=64, ge=1)
    """Largest LoRA rank that serving accepts."""
    context: int = Field(default=8192, ge=1)
    """Longest sequence in tokens."""
    vram_sft: float = Field(default=0, ge=0)
    """GPU memory that SFT needs at least, in GiB."""
    vram_grpo: float = Field(default=0, ge=0)
    """GPU memory that GRPO needs at least, in GiB."""
    source: Source = Source.HUB
    """Hub, or the mirror below ``models/`` in the platform's storage."""
    revision: str = Field(default="main", min_length=1, max_length=64)
    """Git revision on the hub, or the folder of the mirror."""

    def vram(self, algorithm: Algorithm) -> float:
        """Return the GPU memory that ``algorithm`` needs at least, in GiB."""
        return self.vram_sft if algorithm is Algorithm.SFT else self.vram_grpo


def _model(
    model_id: str, parameters: float, cap: int, vram: tuple[float, float], context: int = 8192
) -> Model:
    return Model(
        id=model_id,
        parameters=parameters,
        lora_rank_cap=cap,
        vram_sft=vram[0],
        vram_grpo=vram[1],
        context=context,
    )


BUILT_IN: Final = (
    _model("Qwen/Qwen3.5-0.8B", 0.9, 128, (12, 12)),
    _model("openbmb/MiniCPM5-1B", 1.2, 128, (12, 12)),
    _model("Qwen/Qwen3.5-2B", 2.3, 128, (16, 16)),
    _model("Qwen/Qwen3.5-4B", 4.7, 64, (32, 32)),
    _model("Qwen/Qwen3.5-9B", 9.7, 64, (48, 80)),
    _model("Qwen/Qwen3.6-35B-A3B", 35, 64, (100, 180), context=4096),
)


class Catalog:
    """The built-in models with a platform's additions on top, and mirrored ones of other ids."""

    def __init__(
        self,
        additions: Iterable[Model] = (),
        mirrored: Iterable[Model] = (),
        refused: Mapping[str, str] | None = None,
    ) -> None:
        """Make a catalog; ``refused`` are mirrored models that cannot be used, with the reason."""
        self._models = {model.id: model for model in (*mirrored, *BUILT_IN, *additions)}
        self._refused = refused or {}

    def __iter__(self) -> Iterator[Model]:
        """Iterate over the models, smallest first."""
        return iter(sorted(self._models.values(), key=lambda model: (model.parameters, model.id)))

    def get(self, model_id: str) -> Model | None:
        """Return the model of this id, or None."""
        return self._models.get(model_id)

    def refusal(self, model_id: str) -> str:
        """Return why a model that is in the mirror cannot be used, or an empty string."""
        return self._refused.get(model_id, "")

    def ids(self) -> list[str]:
        """Return every id, smallest model first."""
        return [model.id for model in self]


SEED: Final = 42
"""Seed of every run; it cannot be configured."""
WARM_UP_SHARE: Final = 0.03
"""Share of SFT's steps with a rising learning rate."""

DEFAULT_SPLIT: Final = "train"


def max_tokens_default(thinking: bool) -> int:
    """Return GRPO's longest completion in tokens."""
    return 1536 if thinking else 320


def max_length_default(algorithm: Algorithm, thinking: bool, max_tokens: int) -> int:
    """Return the longest sequence in tokens; GRPO leaves 2,048 for the prompt where it can."""
    if algorithm is Algorithm.SFT:
        return 2048 if thinking else 1024
    return min(max(1024, 2048 + max_tokens), LONGEST_SEQUENCE)
