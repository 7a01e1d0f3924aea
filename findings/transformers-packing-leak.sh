#!/usr/bin/env bash
# What it shows: two examples packed into one row, told apart by position_ids that begin again at 0,
#   without an attention mask. transformers makes masks from such positions for the attentions "eager"
#   and "sdpa". Qwen3 does; GPT-OSS and Afmoe do not hand their positions to the mask: one token
#   changed in the first example changes the logits of the second, and the second has other logits than
#   when it is alone in its row.
# Why it matters: packed SFT of these models learns each example in the context of its neighbours, and
#   only a comparison with rows of one example shows it.
# Versions: transformers 5.19.0, PyTorch 2.13.0 (on a CPU), Python 3.11. Installs 5 GB.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" torch==2.13.0 transformers==5.19.0
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

cat >"$folder/show.py" <<'PYTHON'
"""How far the logits of one example depend on its neighbour in the row."""
import importlib.metadata
import sys

import torch
from transformers import AfmoeConfig, AutoModelForCausalLM, GptOssConfig, Qwen3Config, set_seed

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}
CONFIGS = {
    "Qwen3": Qwen3Config(**SIZES),
    "GPT-OSS": GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "Afmoe": AfmoeConfig(**SIZES, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2),
}


@torch.no_grad()
def leak(config) -> tuple[float, float]:
    """Return the largest change of the second example's logits: by another first one, by none."""
    set_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    first, second = torch.arange(10, 20), torch.arange(30, 40)
    changed = first.clone()
    changed[3] = 55
    positions = torch.arange(10).repeat(2)[None]

    def packed(neighbour: torch.Tensor) -> torch.Tensor:
        row = torch.cat([neighbour, second])[None]
        return model(input_ids=row, position_ids=positions, use_cache=False).logits[0, 10:]

    alone = model(input_ids=second[None], use_cache=False).logits[0]
    return (
        (packed(first) - packed(changed)).abs().max().item(),
        (packed(first) - alone).abs().max().item(),
    )


print(
    "transformers", importlib.metadata.version("transformers"),
    "- PyTorch", importlib.metadata.version("torch"),
)
leaks = {name: leak(config) for name, config in CONFIGS.items()}
for name, (changed, alone) in leaks.items():
    print(f"{name:8} one token of the neighbour changed: {changed:.1e}; against a row of its own: {alone:.1e}")
if max(leaks["Qwen3"]) > 1e-5:
    sys.exit("changed: Qwen3 leaks as well")
if min(*leaks["GPT-OSS"], *leaks["Afmoe"]) < 1e-3:
    sys.exit("changed: GPT-OSS or Afmoe does not leak any more")
print("as described: GPT-OSS and Afmoe see the neighbour, Qwen3 does not")
PYTHON
"$python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
