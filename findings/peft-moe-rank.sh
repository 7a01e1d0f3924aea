#!/usr/bin/env bash
# What it shows: one LoraConfig, rank 4 on q_proj, gate_proj, up_proj and down_proj, on a dense Qwen3
#   and on a Qwen3 mixture of experts, whose experts hold their weights in two fused parameters. On the
#   mixture PEFT replaces the three names by target_parameters and doubles the rank of one of them:
#   gate and up share an adapter of rank 8 per expert. It also warns that the pattern with this rank
#   matched nothing and was ignored; the shapes show that it was not.
# Why it matters: the adapter is larger than its config asks for, and a server that limits the rank, or
#   reads target_modules alone, refuses it or leaves a part of it out.
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
"""The same LoRA config on a dense model and on a mixture of experts."""
import importlib.metadata
import sys
import warnings

from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

RANK, EXPERTS = 4, 3
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}
NAMES = ["q_proj", "gate_proj", "up_proj", "down_proj"]


def adapt(model) -> tuple[LoraConfig, dict[str, tuple[int, ...]], list[str]]:
    """Return the config that PEFT made, the shapes of the lora_A, and the warnings."""
    config = LoraConfig(r=RANK, target_modules=list(NAMES), task_type="CAUSAL_LM")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapted = get_peft_model(model, config)
    shapes = {
        name.split("layers.0.")[1].removesuffix(".default.weight"): tuple(weight.shape)
        for name, weight in adapted.named_parameters()
        if "lora_A" in name
    }
    texts = [str(warning.message) for warning in caught if "pattern" in str(warning.message)]
    return adapted.peft_config["default"], shapes, texts


def show(title: str, config: LoraConfig, shapes: dict, texts: list[str]) -> None:
    print(title)
    print("   target_modules:   ", sorted(config.target_modules))
    print("   target_parameters:", sorted(config.target_parameters or []))
    print("   r and rank_pattern:", config.r, config.rank_pattern)
    for name, shape in shapes.items():
        print("  ", name, shape)
    for text in texts:
        print("   warning:", text)


print("PEFT", importlib.metadata.version("peft"))
dense, dense_shapes, dense_texts = adapt(Qwen3ForCausalLM(Qwen3Config(**SIZES)))
show("dense", dense, dense_shapes, dense_texts)
mixture, shapes, texts = adapt(Qwen3MoeForCausalLM(Qwen3MoeConfig(
    **SIZES, moe_intermediate_size=16, num_experts=EXPERTS, num_experts_per_tok=2,
)))
show(f"mixture of {EXPERTS} experts", mixture, shapes, texts)

if set(dense.target_modules) != set(NAMES) or any(shape[0] != RANK for shape in dense_shapes.values()):
    sys.exit("changed: the dense model is not adapted as the config says")
if set(mixture.target_modules) != {"q_proj"}:
    sys.exit("changed: the names of the experts' projections stay target_modules")
if set(mixture.target_parameters or []) != {"gate_up_proj", "down_proj"}:
    sys.exit("changed: the experts' weights are not target_parameters")
ranks = sorted(shape[0] // EXPERTS for name, shape in shapes.items() if "experts" in name)
if ranks != [RANK, 2 * RANK]:
    sys.exit(f"changed: expected the ranks 4 and 8 per expert, got {ranks}")
if not any("rank_pattern keys did not match" in text for text in texts):
    sys.exit("changed: PEFT does not warn about the rank pattern any more")
print("as described: other targets, a doubled rank, and a warning that says the opposite")
PYTHON
"$python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
