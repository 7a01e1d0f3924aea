"""The base model: downloaded by the init container ``model``, loaded for training."""

import errno
import importlib.util
import logging
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from flashrun.api import names
from flashrun.api.catalog import Source
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import ResolvedAdapter, ResolvedRun
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, Unauthorized
from flashrun_trainer.data.packing import Layout
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import TrainerError, first_line

log = logging.getLogger(__name__)

_FILES: Final = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "tokenizer*")
_LAYERS: Final = (
    r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|in_proj_qkv|in_proj_z|out_proj)"
)
"""What an adapter changes: the large projections of attention, of linear attention and of the MLP.

Routers and the weights of routed experts are none of them, nor are the output layer and the small
gates: an adapter on those is something that PEFT, TRL or vLLM cannot train or serve.
"""
_ABANDONED_SECONDS: Final = 6 * 3600
"""A download that nobody has gone on with for so long belongs to a pod that is gone."""
_ATTENTION: Final = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers in which a token sees what its mask lets it see, and nothing else."""


def run(pod: Pod) -> None:
    """Put the base model where the trainer looks for it, unless an earlier pod did."""
    spec = pod.run()
    folder = pod.model_folder(spec)
    if folder.exists():
        log.info("model %s is in the cache", spec.model.id)
        return
    part = _part(pod, spec)
    shutil.rmtree(part, ignore_errors=True)
    _clear_away(part.parent)
    if spec.model.source is Source.MIRROR:
        _from_mirror(pod.store(), spec, part)
    else:
        _from_hub(spec, part)
    # In one move: another pod that shares the cache sees the whole model or none.
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(part)
    log.info("model %s is ready", spec.model.id)


def _clear_away(folder: Path) -> None:
    """Remove what pods have left in the cache that were stopped while they downloaded."""
    for part in folder.glob("*.part"):
        try:
            touched = max(path.stat().st_mtime for path in (part, *part.rglob("*")))
        except OSError:  # a file has gone meanwhile: somebody is at work there
            continue
        if time.time() - touched > _ABANDONED_SECONDS:
            shutil.rmtree(part, ignore_errors=True)


def doing(pod: Pod) -> str:
    """Say what this container does, and how much of it is done."""
    files = (path for path in _part(pod, pod.run()).rglob("*") if path.is_file())
    # Of files that are filled from several places at once, only what is there counts.
    there = sum(path.stat().st_blocks * 512 for path in files)
    return Activity.DOWNLOADING.with_detail(f"{there / 2**30:.1f} GiB")


def _part(pod: Pod, run: ResolvedRun) -> Path:
    """Return the folder of a model that is not whole yet: one a pod, for pods share a cache."""
    folder = pod.model_folder(run)
    return folder.with_name(f"{folder.name}.{pod.uid}.part")


def _from_mirror(store: Store, spec: ResolvedRun, folder: Path) -> None:
    prefix = names.model_prefix(spec.model.id, spec.model.revision)
    try:
        store.download_folder(prefix, folder)
    except Unauthorized:
        raise  # the storage's trouble, not the model's
    except (KeyNotFound, StorageForbidden) as error:
        raise _unavailable(spec, str(error), "the platform mirrors models below models/") from None


def _from_hub(spec: ResolvedRun, folder: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        snapshot_download(
            spec.model.id,
            revision=spec.model.revision,
            endpoint=spec.hub_endpoint or None,
            local_dir=folder,
            allow_patterns=list(_FILES),
        )
    except Exception as error:
        # The library wraps what the hub said, and what it raises without a connection differs.
        answers = (cause for cause in _causes(error) if isinstance(cause, HfHubHTTPError))
        refused = (getattr(answer.response, "status_code", 0) for answer in answers)
        full = next((c for c in _causes(error) if getattr(c, "errno", 0) == errno.ENOSPC), None)
        if full is not None:
            raise full from error
        if status := next((code for code in refused if code in (401, 403, 404)), 0):
            raise _unavailable(
                spec,
                f"the hub answered {status}",
                "check model; a gated model has to be mirrored by the platform",
            ) from None
        raise _hub_trouble(error) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unavailable(spec: ResolvedRun, why: str, hint: str) -> TrainerError:
    return TrainerError(
        Exit.MODEL_UNAVAILABLE,
        Reason.MODEL_UNAVAILABLE,
        f"model {spec.model.id} at revision {spec.model.revision} cannot be had: {why}",
        hint,
    )


def _hub_trouble(error: Exception) -> TrainerError:
    return TrainerError(
        Exit.TEMPORARY,
        Reason.HUB_UNAVAILABLE,
        f"the model hub is in trouble: {first_line(str(error))}",
        "it is tried again; the platform sets the hub, and can mirror the model",
    )


# --- in the trainer -----------------------------------------------------------------------------


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer; a model without a chat template cannot be trained here."""
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
            "the base model's tokenizer has no end-of-sequence token, so no answer would ever end",
            "use an instruction-tuned model",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(folder: Path) -> Any:
    """Return the base model: on a GPU in bfloat16 and with FlashAttention where the image has it.

    The class is the one that the model's config names, because that is what serving loads: an
    adapter's weights are named after it.
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
    # How its makers would have it sample is no business of a run that says how.
    ends = ("bos_token_id", "eos_token_id", "pad_token_id")
    known = {name: getattr(model.generation_config, name) for name in ends}
    model.generation_config = transformers.GenerationConfig(**known)
    return model


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a completion: those that TRL, too, takes for an end."""
    known = model.generation_config.eos_token_id
    listed = known if isinstance(known, list) else [known]
    return frozenset({tokenizer.eos_token_id, tokenizer.pad_token_id, *listed} - {None})


def adapter_targets(model: Any) -> str:
    """Return which layers a fresh adapter changes: never those of a part that sees."""
    if hasattr(model.config, "vision_config"):
        return rf".*language_model.*\.{_LAYERS}"
    named = re.compile(rf".*\.{_LAYERS}")
    known = any(named.fullmatch(name) for name, _ in model.named_modules())
    return named.pattern if known else "all-linear"


def packing_layout(model: Any) -> Layout:
    """Return how examples may share a row of this model without seeing each other.

    Attention masks keep them apart for PyTorch's attention, sequence boundaries for FlashAttention.
    A layer that carries a state from token to token needs kernels that know the boundaries.
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
        raise  # the storage's trouble, not the adapter's
    except (KeyNotFound, StorageForbidden) as error:
        raise TrainerError(
            Exit.MODEL_UNAVAILABLE,
            Reason.ADAPTER_UNAVAILABLE,
            f"adapter {adapter.ref} cannot be had: {error}",
            "flash checkpoints lists what train.init_from_adapter can name",
        ) from None


def adapter_folder(folder: Path) -> Path:
    """Return where in a downloaded folder the adapter is: in its one sub-folder, if it has one."""
    return next(folder.rglob("adapter_config.json"), folder / "adapter_config.json").parent


def with_adapter(model: Any, folder: Path, ref: str) -> Any:
    """Return the model with an existing adapter that goes on learning.

    Raises:
        TrainerError: the adapter does not fit the model, or would not learn.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        joined = PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (RuntimeError, ValueError) as error:
        # PyTorch's first line is but a heading.
        raise _misfit(ref, first_line(str(error).partition(":\n")[2] or str(error))) from error
    # PEFT looks for the base model's config at every save; by its id it would ask the hub.
    joined.peft_config["default"].base_model_name_or_path = model.name_or_path
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        sizes = {key: file.get_tensor(key).numel() for key in file.keys()}  # noqa: SIM118
    # PEFT leaves layers that it finds no weights for as they were made: at random.
    if strange := sizes.keys() ^ get_peft_model_state_dict(joined).keys():
        raise _misfit(ref, f"the layers have other names, such as {min(strange)}")
    stored = sum(sizes.values())
    learning = sum(weight.numel() for weight in joined.parameters() if weight.requires_grad)
    if learning != stored:
        raise _misfit(ref, f"it has {stored:,} weights, of which {learning:,} would learn")
    log.info("starting from adapter %s with %d trainable weights", ref, learning)
    return joined


def _misfit(ref: str, why: str) -> TrainerError:
    return TrainerError(
        Exit.CONFIG,
        Reason.ADAPTER_MISMATCH,
        f"adapter {ref} does not fit the base model: {why}",
        "train.init_from_adapter must name an adapter of the same model",
    )
