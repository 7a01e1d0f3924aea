#!/usr/bin/env bash
# What it shows: PEFT 0.15.2 loads an adapter that PEFT 0.21.2 saved. It warns about unexpected keyword
#   arguments, which it ignores: settings that are unset in the file. The logits are those of the newer
#   PEFT.
# Why it matters: the warning reads as if a part of the adapter were lost. It would be if one of the
#   settings had a value.
# Versions: PEFT 0.21.2 with transformers 5.19.0 and PyTorch 2.13.0; PEFT 0.15.2 with transformers 4.52.4
#   and PyTorch 2.6.0 (both on a CPU), Python 3.11. Installs 10 GB.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/new"
python3 -m venv "$folder/old"
"$folder/new/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
uv() { "$folder/new/bin/python" -m uv pip install --quiet --python "$folder/$1/bin/python" "${@:2}"; }
uv new torch==2.13.0 transformers==5.19.0 peft==0.21.2
uv old torch==2.6.0 transformers==4.52.4 peft==0.15.2 numpy
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

cat >"$folder/save.py" <<'PYTHON'
"""Save a Qwen3 with an adapter that changes it, and its logits."""
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM, set_seed

folder = Path(sys.argv[1])
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}
set_seed(0)
base = Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=False)).eval()
base.save_pretrained(folder / "base")
ids = torch.arange(10, 30)[None]
with torch.no_grad():
    untrained = base(input_ids=ids).logits
adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
for name, weight in adapted.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(weight)
with torch.no_grad():
    trained = adapted.eval()(input_ids=ids).logits
adapted.save_pretrained(folder / "adapter")
torch.save({"ids": ids, "trained": trained, "untrained": untrained}, folder / "logits.pt")
PYTHON
cat >"$folder/show.py" <<'PYTHON'
"""Load the adapter with the older PEFT."""
import json
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers

folder = Path(sys.argv[1])
saved = torch.load(folder / "logits.pt")
base = transformers.Qwen3ForCausalLM.from_pretrained(folder / "base")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
with torch.no_grad():
    logits = model(input_ids=saved["ids"]).logits
unexpected = [str(item.message) for item in caught if "Unexpected keyword" in str(item.message)]
config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
ignored = {key: value for key, value in config.items() if unexpected and f"'{key}'" in unexpected[0]}
print("PEFT", peft.__version__, "- transformers", transformers.__version__)
print("ignored:", ", ".join(f"{key}={value}" for key, value in ignored.items()))
difference = (logits - saved["trained"]).abs().max().item()
print(f"difference to the trained logits: {difference:.1e}")
if torch.allclose(saved["trained"], saved["untrained"], atol=1e-3):
    sys.exit("the adapter changes nothing: the input is wrong")
if not unexpected:
    sys.exit("changed: no warning about unexpected keyword arguments")
if difference > 1e-5:
    sys.exit("changed: the logits are not the trained ones")
print("as described: a warning, and the trained logits")
PYTHON
"$folder/new/bin/python" "$folder/save.py" "$folder" >/dev/null 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
"$folder/old/bin/python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
