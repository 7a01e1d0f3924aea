"""How an adapter is loaded and served, as its model cards say it."""

from collections.abc import Mapping
from typing import Any, Final

from flashrun.api.catalog import Source
from flashrun.api.records import ResolvedModel

CONFIG_FILE: Final = "adapter_config.json"
"""PEFT's description of an adapter, beside its weights."""
_VLLM_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's ``--max-lora-rank``."""
_NOT_IN_SGLANG: Final = frozenset({"in_proj_qkv"})
"""Layers whose weights SGLang does not join with those of the layers it has fused them with."""

_NO_SERVER: Final = "# no server that we know takes it; merge it with PEFT"


def is_lora_config(config: object) -> bool:
    """Return whether this is PEFT's config of a LoRA, as far as loading and serving read it.

    One that changes parameters of layers alone has no target_modules.
    """
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        return False
    rank, alpha, layers = (config.get(key) for key in ("r", "lora_alpha", "target_modules"))
    if layers is None:
        layers = config.get("target_parameters") or None
    names = [layers] if isinstance(layers, str) else layers
    mapping = config.get("auto_mapping")
    kind = {} if mapping is None else mapping
    kind = kind.get("base_model_class", "Auto") if isinstance(kind, dict) else None
    return (
        type(rank) is int
        and rank > 0
        and type(alpha) in (int, float)
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and isinstance(kind, str)
        and kind.isidentifier()
    )


def loading_code(config: Mapping[str, Any], model: ResolvedModel) -> str:
    """Return code that loads the base model as the class that was trained, and the adapter.

    ``config`` is the adapter's.
    """
    kind = (config.get("auto_mapping") or {}).get("base_model_class", "AutoModelForCausalLM")
    imports = ", ".join(sorted((kind, "AutoTokenizer")))
    base, arguments = _base(model)
    return f"""\
from peft import PeftModel
from transformers import {imports}

{base}
model = {kind}.from_pretrained({arguments})
model = PeftModel.from_pretrained(model, ".")
tokenizer = AutoTokenizer.from_pretrained({arguments})"""


def _base(model: ResolvedModel) -> tuple[str, str]:
    """Return the line that names the base model, and the arguments of what loads it."""
    if model.source is Source.HUB:
        return f'base, revision = "{model.id}", "{model.revision}"', "base, revision=revision"
    return f'base = "{model.id}"  # its folder', "base"


def serving_commands(config: Mapping[str, Any], name: str, base: str) -> str:
    """Return the commands of the servers that take this adapter (``docs/adapters.md``)."""
    commands = []
    if config["target_modules"] is None:  # both servers look for layers by their names
        return _NO_SERVER
    if most := vllm_rank(config["r"]):
        vllm = f"vllm serve {base} --enable-lora --max-lora-rank {most} --lora-modules {name}=."
        commands.append(vllm)
    if not _NOT_IN_SGLANG.intersection(config["target_modules"]):
        commands.append(
            f"python -m sglang.launch_server --model-path {base} --enable-lora "
            f"--lora-paths {name}=."
        )
    return "\n".join(commands) or _NO_SERVER


def vllm_rank(rank: int) -> int | None:
    """Return the smallest ``--max-lora-rank`` of vLLM that holds ``rank``, if there is one."""
    return next((most for most in _VLLM_RANKS if most >= rank), None)
