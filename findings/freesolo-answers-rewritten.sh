#!/usr/bin/env bash
# What it shows: the freesolo SDK writes a structured answer anew before a model learns it. Keys are
#   sorted, so an object that reasons first and answers second is learned with the answer first;
#   letters outside ASCII become \u escapes; every level is indented. Text answers lose the spaces
#   they begin with, so the completion of an indented line of code is learned without indentation.
# Why it matters: the order of keys is the order in which a model thinks, and nothing warns.
# Versions: freesolo 0.4.2, Python 3.11.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" freesolo==0.4.2

cat >"$folder/show.py" <<'PYTHON'
"""What the SDK makes of two answers of a dataset."""
import importlib.metadata
import json
import sys
from pathlib import Path

from freesolo.datasets import load_dataset, target_messages

dataset = Path(sys.argv[1]) / "train.jsonl"
rows = [
    {"input": "Where is it?", "output": {"reasoning": "It lies on the Limmat.", "city": "Zürich"}},
    {"input": "def one():\n", "output": "    return 1\n"},
]
dataset.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

print("freesolo", importlib.metadata.version("freesolo"))
learned = []
for row, example in zip(rows, load_dataset(dataset).examples, strict=True):
    [message] = target_messages(example.output)
    learned.append(message["content"])
    print("in the file:", json.dumps(row["output"], ensure_ascii=False))
    print("learned:    ", repr(message["content"]))

if learned[0].index("city") > learned[0].index("reasoning"):
    sys.exit("changed: keys keep their order")
if "Z\\u00fcrich" not in learned[0]:
    sys.exit("changed: letters outside ASCII are not escaped")
if learned[1] != "return 1":
    sys.exit("changed: text answers keep the spaces around them")
print("as described: keys sorted, letters escaped, indentation removed")
PYTHON
"$python" "$folder/show.py" "$folder"
