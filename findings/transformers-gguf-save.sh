#!/usr/bin/env bash
# What it shows: a GGUF file of quantized weights, loaded by transformers as its documentation shows,
#   with gguf_file=. The weights of a Llama arrive unpacked, as float32 in plain linear layers, and yet
#   the model counts as quantized: save_pretrained refuses it. The same file loaded with
#   GgufConfig(dequantize=True) has the same weights and can be saved.
# Why it matters: "load the GGUF file, save it as safetensors" was the usual way to train from such a
#   file; the error speaks of a quantized model, where nothing is quantized.
# Versions: transformers 5.19.0, gguf 0.19.0, PyTorch 2.13.0 (on a CPU), Python 3.11. Installs 5 GB.
# Seen: 2026-11-29.
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
"""A small Llama in a GGUF file: loaded in two ways, then saved."""
import importlib.metadata
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, GgufConfig

FOLDER = Path(sys.argv[1])
SIZE, VOCABULARY, HEADS = 64, 64, 2


def write(path: Path) -> None:
    """Write a Llama of one layer whose matrices are quantized to Q8_0."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(SIZE)
    writer.add_feed_forward_length(SIZE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(SIZE // HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{index}" for index in range(VOCABULARY)])
    writer.add_token_merges([])
    kind = gguf.GGMLQuantizationType.Q8_0
    random = np.random.default_rng(0)
    attention = [f"blk.0.attn_{name}" for name in ("q", "k", "v", "output")]
    mlp = [f"blk.0.ffn_{name}" for name in ("gate", "up", "down")]
    for name in ["token_embd", "output", *attention, *mlp]:
        matrix = random.standard_normal((SIZE, SIZE)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(matrix, kind), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(SIZE, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_and_save(title: str, **options: object) -> tuple[torch.Tensor, str]:
    model = AutoModelForCausalLM.from_pretrained(
        FOLDER, gguf_file="model.gguf", dtype=torch.float32, **options
    )
    layer = model.model.layers[0].self_attn.q_proj
    try:
        model.save_pretrained(FOLDER / "saved")
        outcome = "saved"
    except ValueError as error:
        outcome = f"refused: {error}"
    print(f"{title}: {type(layer).__name__} {layer.weight.dtype}, {outcome}")
    return layer.weight.detach(), outcome


print("transformers", importlib.metadata.version("transformers"))
write(FOLDER / "model.gguf")
first, refused = load_and_save("gguf_file=")
second, saved = load_and_save(
    "gguf_file= and dequantize=True", quantization_config=GgufConfig(dequantize=True)
)
if first.dtype != torch.float32 or not torch.equal(first, second):
    sys.exit("changed: the weights are not unpacked when the file is loaded")
if not refused.startswith("refused:"):
    sys.exit("changed: the model can be saved as it is loaded")
if saved != "saved":
    sys.exit("changed: dequantize=True does not help to save the model")
print("as described: the same float32 weights are refused or saved, by how they were loaded")
PYTHON
"$python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
