"""Make a random Qwen3 whose step takes a few hundred milliseconds on one core: ``FOLDER``."""

import runpy
import sys
from pathlib import Path

TINY = Path(__file__).parents[1] / "examples" / "tiny-model" / "make_tiny_model.py"
SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 576,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
}


def main() -> None:
    """Write tokenizer and model to the folder in the arguments."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tiny = runpy.run_path(str(TINY))
    tokens = tiny["make_tokenizer"](folder)
    special = tiny["SPECIAL_TOKENS"]
    torch.manual_seed(tiny["SEED"])
    config = Qwen3Config(
        **SHAPE,
        vocab_size=tokens,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=special.index("<|im_end|>"),
        pad_token_id=special.index("<|endoftext|>"),
        dtype="float32",
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    main()
