#!/usr/bin/env bash
# What it shows: GGUF files of models whose rotary positions are scaled, read by transformers with
#   gguf_file=. Llama 3.1 and later keep the scaling in a tensor, rope_freqs.weight; a Qwen3 with YaRN
#   keeps it in the keys rope.scaling.*. Both are left out: all weights are right, the config says that
#   the positions are plain, and the logits are those of another model.
# Why it matters: a model that is trained, merged or measured after such a conversion is not the one
#   that the file holds, and no comparison of weights can find it.
# Versions: transformers 5.19.0, gguf 0.19.0, PyTorch 2.13.0 (on a CPU), Python 3.11. Installs 5 GB.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" torch==2.13.0 transformers==5.19.0 \
    accelerate==1.15.0 gguf==0.19.0
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

cat >"$folder/show.py" <<'PYTHON'
"""Models of one layer, with and without scaled positions, before and after a GGUF file."""
import importlib.metadata
import sys
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config, set_seed

FOLDER = Path(sys.argv[1])
SHAPE = dict(
    vocab_size=64, hidden_size=256, intermediate_size=64, num_hidden_layers=1, head_dim=128,
    num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=131072, initializer_range=0.1,
)
PLAIN = {"rope_type": "default", "rope_theta": 500000.0}
LLAMA3 = PLAIN | {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = PLAIN | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def write(model, path: Path) -> None:
    """Write ``model`` as llama.cpp's converter does: same tensors, same keys, in float32."""
    config, scaling = model.config, model.config.rope_parameters
    architecture = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen3": gguf.MODEL_ARCH.QWEN3}[config.model_type]
    writer = gguf.GGUFWriter(str(path), config.model_type)
    writer.add_block_count(1)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(scaling["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{index}" for index in range(config.vocab_size)])
    writer.add_token_merges([])
    if scaling["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    if scaling["rope_type"] == "llama3":
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        plain = scaling["rope_theta"] ** -steps
        writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).numpy())
    names = gguf.get_tensor_name_map(architecture, 1)
    for name, weight in model.state_dict().items():
        if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
            # GGUF has the two numbers of a rotation side by side in Llamas.
            heads = weight.view(config.num_attention_heads, 2, config.head_dim // 2, -1)
            weight = heads.transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name.removesuffix(".weight")) + ".weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(title: str, config) -> tuple[str, bool, float]:
    """Return what the config says after reading, whether all weights are equal, and by how much logits differ."""
    set_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    path = FOLDER / f"{config.model_type}-{config.rope_parameters['rope_type']}.gguf"
    write(model, path)
    read = AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=path.name, dtype=torch.float32).eval()
    ids = torch.randint(64, (1, 256), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (model(input_ids=ids).logits - read(input_ids=ids).logits).abs().max().item()
    before, after = model.state_dict(), read.state_dict()
    equal = before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    kind = read.config.rope_parameters["rope_type"]
    print(f"{title}: rope_type {kind}, weights {'equal' if equal else 'differ'}, logits differ by {difference:.1e}")
    return kind, equal, difference


print("transformers", importlib.metadata.version("transformers"), "- gguf", importlib.metadata.version("gguf"))
controls = [
    compare("Llama, plain positions ", LlamaConfig(**SHAPE, rope_parameters=PLAIN)),
    compare("Qwen3, plain positions ", Qwen3Config(**SHAPE, rope_parameters=PLAIN)),
]
scaled = [
    compare("Llama, scaled as in 3.1", LlamaConfig(**SHAPE, rope_parameters=LLAMA3)),
    compare("Qwen3, YaRN with 4.0   ", Qwen3Config(**SHAPE, rope_parameters=YARN)),
]
if not all(kind == "default" and equal and difference < 1e-4 for kind, equal, difference in controls):
    sys.exit("the models with plain positions are not read back: the input is wrong")
if not all(kind == "default" and equal and difference > 0.1 for kind, equal, difference in scaled):
    sys.exit("changed: the scaling of positions is not left out any more")
print("as described: the scaling is lost, and the same weights give other logits")
PYTHON
"$python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
