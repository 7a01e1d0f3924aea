"""Whether a folder holds a base model that can be trained, and its entry for the catalog.

The folder was read before: names and sizes of files, JSON files, the headers of the weights.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, Final, NamedTuple

from flashrun.api.catalog import Model, Source, Thinking
from flashrun.api.records import ModelFacts
from flashrun.api.trainable_models import ARCHITECTURES, MODEL_FILES

PICKLES: Final = ("*.bin", "*.ckpt", "*.joblib", "*.pickle", "*.pkl", "*.pt", "*.pth")
"""Files that may run code when they are loaded."""
CONTEXT: Final = 8192
"""Longest sequence that a printed entry allows; most models could do more than GPUs hold."""

_CONFIG: Final = "config.json"
_TOKENIZER_CONFIG: Final = "tokenizer_config.json"
_INDEX: Final = "model.safetensors.index.json"
_TEMPLATE: Final = "chat_template.jinja"
_SHARD: Final = re.compile(r".*-(\d{5})-of-(\d{5})\.safetensors")


class WeightsFile(NamedTuple):
    """What the header of one safetensors file says."""

    tensors: frozenset[str]
    parameters: int
    """Numbers in all tensors together."""


@dataclass(frozen=True)
class ModelFiles:
    """A folder of a model, as it was read."""

    sizes: Mapping[str, int]
    """Every file in the folder itself, with its bytes."""
    documents: Mapping[str, Any] = field(default_factory=dict)
    """JSON files that could be read."""
    weights: Mapping[str, WeightsFile] = field(default_factory=dict)
    """Files of weights that could be read."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Files that could not be read, with the reason."""
    template: str = ""
    """The text of chat_template.jinja."""


@dataclass(frozen=True)
class ModelCheck:
    """What is wrong with a model, what is uploaded of it, and what the catalog says about it."""

    problems: tuple[str, ...]
    """One sentence each; empty when the model can be trained."""
    uploaded: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    parameters: int = 0
    context: int = CONTEXT
    thinking: Thinking = Thinking.NONE

    @property
    def facts(self) -> ModelFacts:
        """What the mirror keeps of a model without problems."""
        return ModelFacts(parameters=self.parameters, context=self.context, thinking=self.thinking)


def model_entry(model_id: str, revision: str, facts: ModelFacts) -> Model:
    """Return the entry of the catalog, with estimated needs of GPU memory."""
    billions = facts.parameters / 1e9
    sft, grpo = estimate_vram(billions)
    return Model(
        id=model_id,
        parameters=float(f"{billions:.2g}"),
        thinking=facts.thinking,
        context=facts.context,
        vram_sft=sft,
        vram_grpo=grpo,
        source=Source.MIRROR,
        revision=revision,
    )


def estimate_vram(billions: float) -> tuple[int, int]:
    """Return the GPU memory in GiB that SFT and GRPO need, for a model of so many parameters.

    A rule of thumb that lies between the built-in models of the catalog: 8 GiB for activations,
    and the weights in bfloat16 twice for SFT, three and a half times for GRPO with vLLM.
    """
    weights = billions * 2e9 / 2**30
    return math.ceil(8 + 2 * weights), math.ceil(8 + 3.5 * weights)


def check_model(files: ModelFiles) -> ModelCheck:
    """Check a folder: nothing is uploaded of one with problems."""
    uploaded = tuple(sorted(name for name in files.sizes if is_uploaded(name)))
    config = files.documents.get(_CONFIG)
    template = _template(files)
    problems = (
        *(f"{name} {why}" for name, why in sorted(files.broken.items()) if name in uploaded),
        *_config_problems(files, config),
        *_weight_problems(files),
        *_tokenizer_problems(files, template),
    )
    return ModelCheck(
        problems=problems,
        uploaded=uploaded,
        left_out=tuple(sorted(files.sizes.keys() - set(uploaded))),
        parameters=sum(weights.parameters for weights in files.weights.values()),
        context=_context(config),
        thinking=_thinking(template),
    )


def is_uploaded(name: str) -> bool:
    """Return whether a file of this name is part of what training needs, and harmless."""
    return _matches(name, MODEL_FILES) and not _is_pickle(name)


def _is_pickle(name: str) -> bool:
    return _matches(name.lower(), PICKLES)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return not name.startswith(".") and any(fnmatch(name, pattern) for pattern in patterns)


def _config_problems(files: ModelFiles, config: Any) -> Iterator[str]:
    if _CONFIG not in files.sizes:
        yield "config.json is missing: give the whole folder of a model"
        return
    if _CONFIG in files.broken:
        return
    names = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(names, list) or not names:
        yield "config.json names no architecture: give the whole folder of a model"
    elif names[0] not in ARCHITECTURES:
        code = ", and code of a model is never run" if config.get("auto_map") else ""
        yield f"the trainer does not know the architecture {names[0]} of config.json{code}"


def _weight_problems(files: ModelFiles) -> Iterator[str]:
    stored = {name for name in files.sizes if name.endswith(".safetensors")}
    pickles = sorted(name for name in files.sizes if _is_pickle(name))
    if not stored:
        yield (
            f"the weights are a pickle ({pickles[0]}), which can run code when it is loaded: "
            "convert them to safetensors"
            if pickles
            else "there are no weights: *.safetensors is missing"
        )
        return
    if _INDEX in files.sizes:
        yield from _index_problems(files, stored)
    elif any(map(_SHARD.fullmatch, stored)):
        yield f"{_INDEX} is missing, and the weights are in several files"


def _index_problems(files: ModelFiles, stored: set[str]) -> Iterator[str]:
    if _INDEX in files.broken:
        return
    index = files.documents.get(_INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        yield f"{_INDEX} has no weight_map"
        return
    listed = set(places.values())
    if missing := sorted(listed - stored):
        yield f"{len(missing)} of {len(listed)} files of weights are missing, such as {missing[0]}"
        return
    lost = [
        tensor
        for tensor, name in places.items()
        if name in files.weights and tensor not in files.weights[name].tensors
    ]
    if lost:
        yield f"{len(lost)} tensors are not in the file that {_INDEX} names, such as {min(lost)}"


def _tokenizer_problems(files: ModelFiles, template: str) -> Iterator[str]:
    vocabulary = {"tokenizer.json", "tokenizer.model"} & files.sizes.keys()
    if not vocabulary and not {"vocab.json", "merges.txt"} <= files.sizes.keys():
        yield "the tokenizer is missing: tokenizer.json or tokenizer.model"
        return
    if not template:
        yield (
            "there is no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json): use an instruction-tuned model"
        )
    if _TOKENIZER_CONFIG in files.sizes and _TOKENIZER_CONFIG not in files.broken:
        config, marks = files.documents.get(_TOKENIZER_CONFIG), "special_tokens_map.json"
        sources = (config, files.documents.get(marks))
        if not any(isinstance(source, dict) and source.get("eos_token") for source in sources):
            yield "the tokenizer has no end-of-sequence token (eos_token), so no answer would end"


def _template(files: ModelFiles) -> str:
    """Return the chat template; several named ones are joined."""
    config = files.documents.get(_TOKENIZER_CONFIG)
    single = files.documents.get("chat_template.json")
    found = [
        document.get("chat_template") for document in (config, single) if isinstance(document, dict)
    ]
    texts: list[Any] = [files.template]
    for template in found:
        named = template if isinstance(template, list) else [{"template": template}]
        texts += [item.get("template") for item in named if isinstance(item, dict)]
    return "\n".join(text for text in texts if isinstance(text, str) and text.strip())


def _thinking(template: str) -> Thinking:
    if "enable_thinking" in template:
        return Thinking.HYBRID
    return Thinking.ALWAYS if "<think>" in template else Thinking.NONE


def _context(config: Any) -> int:
    """Return the longest sequence of the text model, at most ``CONTEXT``."""
    inner = config.get("text_config") if isinstance(config, dict) else None
    for part in (inner, config):
        longest = part.get("max_position_embeddings") if isinstance(part, dict) else None
        if isinstance(longest, int) and longest > 0:
            return min(longest, CONTEXT)
    return CONTEXT
