#!/usr/bin/env bash
# What it shows: a LoRA adapter, trained on the multimodal class of Qwen3.5 and saved by PEFT with its
#   task type CAUSAL_LM. AutoPeftModelForCausalLM loads the text class, whose weights have other names:
#   it warns about missing keys, and the logits are those of the base model. With task_type null and
#   auto_mapping naming the class, the same loader gives the trained logits.
# Why it matters: an adapter that was published with the usual task type does nothing where the usual
#   loader is used, and only a warning says so.
# Versions: PEFT 0.21.2, transformers 5.19.0, PyTorch 2.13.0 (on a CPU), Python 3.11. Installs 5 GB.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" torch==2.13.0 transformers==5.19.0 peft==0.21.2
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

cat >"$folder/show.py" <<'PYTHON'
"""One adapter, published with a task type and with the name of its base class."""
import importlib.metadata
import json
import sys
import warnings
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration, set_seed

folder = Path(sys.argv[1])
TEXT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 1,
    "linear_num_value_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "tie_word_embeddings": False,
}
VISION = {
    "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
    "num_position_embeddings": 16, "patch_size": 4,
}
IDS = torch.arange(10, 30)[None]


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=IDS, use_cache=False).logits


def load() -> tuple[torch.Tensor, list[str]]:
    """Return the logits that the usual loader gives, and the first words of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = logits(AutoPeftModelForCausalLM.from_pretrained(folder / "adapter"))
    return loaded, [str(warning.message)[:60] for warning in caught]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5)


print("PEFT", importlib.metadata.version("peft"), "- transformers", importlib.metadata.version("transformers"))
set_seed(0)
base = Qwen3_5ForConditionalGeneration(
    Qwen3_5Config(text_config=TEXT, vision_config=VISION, tie_word_embeddings=False)
)
base.save_pretrained(folder / "base")
untrained = logits(base)
config = LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
adapted = get_peft_model(base, config)
for name, weight in adapted.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(weight)
trained = logits(adapted)
adapted.peft_config["default"].base_model_name_or_path = str(folder / "base")
adapted.save_pretrained(folder / "adapter")

usual, texts = load()
print("task_type CAUSAL_LM: trained logits:", same(usual, trained), "- base logits:", same(usual, untrained))
print("   warnings:", texts)
path = folder / "adapter" / "adapter_config.json"
mapping = {"base_model_class": "Qwen3_5ForConditionalGeneration", "parent_library": "transformers"}
path.write_text(json.dumps(json.loads(path.read_text()) | {"task_type": None, "auto_mapping": mapping}))
mapped, mapped_texts = load()
print("auto_mapping:        trained logits:", same(mapped, trained), "- base logits:", same(mapped, untrained))
print("   warnings:", mapped_texts)
if same(untrained, trained):
    sys.exit("the adapter changes nothing: the input is wrong")
if not same(usual, untrained):
    sys.exit("changed: the usual task type does not give the base model's logits")
if not same(mapped, trained):
    sys.exit("changed: auto_mapping does not give the trained logits")
print("as described: the usual task type loads the base model, auto_mapping the trained one")
PYTHON
"$python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
