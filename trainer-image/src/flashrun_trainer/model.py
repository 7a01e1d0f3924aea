"""The base model, its tokenizer, and the adapter that a run starts from, loaded for training."""

import importlib.util
import logging
import re
from pathlib import Path
from typing import Any, Final

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedAdapter
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, Unauthorized
from flashrun_trainer.data.packing import Layout
from flashrun_trainer.pod.trainer_errors import TrainerError, first_line

log = logging.getLogger(__name__)

_LORA_LAYERS: Final = (
    r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|in_proj_qkv|in_proj_z|out_proj)"
)
"""The layers that an adapter changes: the large projections of attention, linear attention and MLP.

Routers, routed experts, the output layer and small gates are left out: PEFT, TRL or vLLM cannot
train or serve an adapter on them.
"""
_ATTENTION: Final = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers in which the attention mask alone decides which tokens a token sees."""


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in ``folder``.

    Raises:
        TrainerError: it has no chat template or no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise TrainerError(
            Exit.MODEL_UNAVAILABLE,
            Reason.CHAT_TEMPLATE_MISSING,
            "the base model has no chat template, so prompts cannot be rendered",
            "use an instruction-tuned model",
        )
    if tokenizer.eos_token is None:
        raise TrainerError(
            Exit.MODEL_UNAVAILABLE,
            Reason.END_TOKEN_MISSING,
            "the base model's tokenizer has no end-of-sequence token, so an answer would never end",
            "use an instruction-tuned model",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(folder: Path) -> Any:
    """Return the base model: on a GPU in bfloat16, with FlashAttention if the image has it.

    The class is the one in the model's config, because serving loads the same class, and the names
    of an adapter's weights depend on it.
    """
    import torch
    import transformers
    from transformers.utils import is_flash_attn_2_available

    config = transformers.AutoConfig.from_pretrained(folder)
    name = (config.architectures or [""])[0]
    kind = getattr(transformers, name, transformers.AutoModelForCausalLM)
    if torch.cuda.is_available():
        flash = "flash_attention_2" if is_flash_attn_2_available() else None
        model = kind.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation=flash)
    else:
        model = kind.from_pretrained(folder, dtype=torch.float32)
    # Ignore the model's generation defaults: the run config sets the sampling parameters.
    token_ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    kept = {name: getattr(model.generation_config, name) for name in token_ids}
    model.generation_config = transformers.GenerationConfig(**kept)
    return model


def end_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens that end a completion, as TRL decides it."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset({tokenizer.eos_token_id, tokenizer.pad_token_id, *ids} - {None})


def adapter_targets(model: Any) -> str:
    """Return the ``target_modules`` of a fresh adapter: never layers of a vision encoder."""
    if hasattr(model.config, "vision_config"):
        return rf".*language_model.*\.{_LORA_LAYERS}"
    layers = re.compile(rf".*\.{_LORA_LAYERS}")
    has_layers = any(layers.fullmatch(name) for name, _ in model.named_modules())
    return layers.pattern if has_layers else "all-linear"


def packing_layout(model: Any) -> Layout:
    """Return how examples may share a row of this model without influencing each other.

    PyTorch's attention separates them by masks, FlashAttention by sequence boundaries. A layer that
    carries a state from token to token needs kernels that know the boundaries.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or _ATTENTION)
    flash = "flash" in str(config._attn_implementation)
    if model._is_stateful or kinds - _ATTENTION:
        return Layout.FLAT if flash and _has_state_kernels() else Layout.PADDED
    return Layout.FLAT if flash else Layout.ROWS


def _has_state_kernels() -> bool:
    return all(importlib.util.find_spec(name) for name in ("fla", "causal_conv1d"))


def download_adapter(store: Store, adapter: ResolvedAdapter, folder: Path) -> None:
    """Download the adapter that the run starts from."""
    try:
        store.download_folder(adapter.prefix, folder)
    except Unauthorized:
        raise  # a failure of storage, not of the adapter
    except (KeyNotFound, StorageForbidden) as error:
        raise TrainerError(
            Exit.MODEL_UNAVAILABLE,
            Reason.ADAPTER_UNAVAILABLE,
            f"adapter {adapter.ref} is not available: {error}",
            "set train.init_from_adapter to a name that flash checkpoints lists",
        ) from None


def adapter_folder(folder: Path) -> Path:
    """Return the folder of the adapter within a download: a sub-folder, or the folder itself."""
    return next(folder.rglob("adapter_config.json"), folder / "adapter_config.json").parent


def attach_adapter(model: Any, folder: Path, ref: str) -> Any:
    """Return the model with an existing adapter, whose weights are trained further.

    Raises:
        TrainerError: the adapter does not fit the model, or would not be trained.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        peft_model = PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (RuntimeError, ValueError) as error:
        # The first line of PyTorch's message is only a heading.
        raise _mismatch(ref, first_line(str(error).partition(":\n")[2] or str(error))) from error
    # At every save PEFT reads the base model's config; with the model's id it would ask the hub.
    peft_model.peft_config["default"].base_model_name_or_path = model.name_or_path
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        sizes = {key: file.get_tensor(key).numel() for key in file.keys()}  # noqa: SIM118
    # PEFT leaves a layer without stored weights at its random initial values.
    if unmatched := sizes.keys() ^ get_peft_model_state_dict(peft_model).keys():
        raise _mismatch(ref, f"its layers have other names, such as {min(unmatched)}")
    stored = sum(sizes.values())
    trainable = sum(weight.numel() for weight in peft_model.parameters() if weight.requires_grad)
    if trainable != stored:
        raise _mismatch(ref, f"it has {stored:,} weights, of which {trainable:,} are trainable")
    log.info("starting from adapter %s with %d trainable weights", ref, trainable)
    return peft_model


def _mismatch(ref: str, why: str) -> TrainerError:
    return TrainerError(
        Exit.CONFIG,
        Reason.ADAPTER_MISMATCH,
        f"adapter {ref} does not fit the base model: {why}",
        "set train.init_from_adapter to an adapter of the same base model",
    )
