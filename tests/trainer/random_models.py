"""Tiny random models of families that a platform may add to the catalog."""

from typing import Any, Final

TINY: Final = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
HEADS: Final = TINY | {"head_dim": 8}
EXPERTS: Final = HEADS | {
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
FAMILIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "Qwen3": ("Qwen3ForCausalLM", HEADS),
    "Llama": ("LlamaForCausalLM", HEADS),
    "Gemma 3": ("Gemma3ForCausalLM", HEADS),
    "Phi-3": ("Phi3ForCausalLM", TINY),
    "Phi-2": ("PhiForCausalLM", TINY),
    "GLM-4": ("Glm4ForCausalLM", HEADS),
    "GPT-NeoX": ("GPTNeoXForCausalLM", TINY),
    "OPT": ("OPTForCausalLM", TINY | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "MPT": ("MptForCausalLM", {"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 128}),
    "LFM2": ("Lfm2ForCausalLM", TINY | {"layer_types": ["conv", "full_attention"]}),
    "Mixtral": ("MixtralForCausalLM", EXPERTS),
    "GPT-OSS": ("GptOssForCausalLM", EXPERTS),
    "Afmoe": ("AfmoeForCausalLM", EXPERTS | {"num_dense_layers": 1}),
    "Qwen3 with experts": ("Qwen3MoeForCausalLM", EXPERTS),
    "GLM-4 with experts": (
        "Glm4MoeForCausalLM",
        EXPERTS | {"n_routed_experts": 4, "first_k_dense_replace": 1},
    ),
    "Qwen3-Next": (
        "Qwen3NextForCausalLM",
        EXPERTS
        | {
            "layer_types": ["linear_attention", "full_attention"],
            "shared_expert_intermediate_size": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
    "Nemotron-H": (
        "NemotronHForCausalLM",
        HEADS
        | {
            "hybrid_override_pattern": "M*-",
            "num_hidden_layers": 3,
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 1,
        },
    ),
    "Granite with Mamba": (
        "GraniteMoeHybridForCausalLM",
        EXPERTS
        | {
            "layer_types": ["mamba", "attention"],
            "shared_intermediate_size": 48,
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_d_state": 8,
            "mamba_n_groups": 1,
        },
    ),
    "RWKV": (
        "RwkvForCausalLM",
        {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48},
    ),
}
"""Class and config of each."""


def random_model(family: str) -> Any:
    """Return a model of the family with random weights, in float32 and not in training."""
    import torch
    import transformers

    class_name, settings = FAMILIES[family]
    kind = getattr(transformers, class_name)
    torch.manual_seed(0)
    return kind(kind.config_class(**settings)).eval()
