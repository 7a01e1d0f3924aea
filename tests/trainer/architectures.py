"""Every architecture of the catalog, as the config of a tiny random model."""

from pathlib import Path
from typing import Any

from flashrun.api.trainer_choices import Layout
from tests.trainer.pods import MODEL, Workshop

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,  # vLLM has no smaller heads on a CPU
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
HYBRID = TINY | {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 128,  # the same
    "linear_value_head_dim": 128,
}
EXPERTS = HYBRID | {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "patch_size": 4,
}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
LINEAR_ATTENTION = {"in_proj_qkv", "in_proj_z", "out_proj"}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], str, set[str], Layout]] = {
    "Qwen3": ("Qwen3ForCausalLM", TINY, "model.layers", ATTENTION | MLP, Layout.ROWS),
    "MiniCPM5": ("LlamaForCausalLM", TINY, "model.layers", ATTENTION | MLP, Layout.ROWS),
    "Qwen3.5, its language model": (
        "Qwen3_5ForCausalLM",
        HYBRID,
        "model.layers",
        ATTENTION | MLP | LINEAR_ATTENTION,
        Layout.PADDED,
    ),
    "Qwen3.5": (
        "Qwen3_5ForConditionalGeneration",
        {"text_config": HYBRID, "vision_config": VISION, "tie_word_embeddings": False},
        "model.language_model.layers",
        ATTENTION | MLP | LINEAR_ATTENTION,
        Layout.PADDED,
    ),
    "Qwen3.6 with experts": (
        "Qwen3_5MoeForConditionalGeneration",
        {"text_config": EXPERTS, "vision_config": VISION, "tie_word_embeddings": False},
        "model.language_model.layers",
        ATTENTION | MLP | LINEAR_ATTENTION,
        Layout.PADDED,
    ),
}
"""Class, config, where vLLM and PEFT look for layers, which of them are adapted, how rows are laid
out without special kernels."""


def save_random_model(architecture: str, workshop: Workshop, tiny_model: Path) -> Path:
    """Put a random model into the pods' model cache, with the tiny model's tokenizer."""
    import torch
    import transformers
    from transformers import AutoTokenizer

    class_name, settings, *_ = ARCHITECTURES[architecture]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    kind = getattr(transformers, class_name)
    inner = settings.get("text_config")
    config = kind.config_class(
        **({**settings, "text_config": inner | ids} if inner else settings | ids)
    )
    torch.manual_seed(7)
    model_id = f"tiny/{class_name}"
    folder = workshop.folder / "model" / model_id.replace("/", "--") / MODEL.revision
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
