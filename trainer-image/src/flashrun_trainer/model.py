"""The base model, its tokenizer, and the adapter that a run starts from, loaded for training."""

import logging
from datetime import date, datetime, time
from functools import partial
from pathlib import Path
from typing import Any

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedAdapter
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, Unauthorized
from flashrun_trainer.pod.trainer_errors import TrainerError, first_line

log = logging.getLogger(__name__)


def load_tokenizer(folder: Path, prompt_date: date | None = None) -> Any:
    """Return the tokenizer in ``folder``.

    Templates that write today's date get ``prompt_date``: a run that resumes on another day would
    otherwise learn from other prompts.

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
    if prompt_date is not None:
        # A variable of the template precedes the function of this name that transformers defines.
        clock = datetime.combine(prompt_date, time.min).strftime
        tokenizer.apply_chat_template = partial(tokenizer.apply_chat_template, strftime_now=clock)
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
    from peft import LoraConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        config = LoraConfig.from_pretrained(folder)
        config.task_type = "CAUSAL_LM"  # published adapters of multimodal models have none
        peft_model = PeftModel.from_pretrained(model, folder, is_trainable=True, config=config)
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
