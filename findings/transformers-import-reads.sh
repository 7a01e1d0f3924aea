#!/usr/bin/env bash
# What it shows: `import transformers` opens and reads every Python file of all its model folders, to
#   find out which names they define, and the first name that is taken from it reads all of them once
#   more. The function that reads is cached, but the two calls spell the folder differently, and the
#   cache has room for 128 of about 500 folders. A name that is taken after that reads
#   only what it needs.
# Why it matters: every process that trains, evaluates or serves pays for it before its first step;
#   compiled bytecode does not help, because the sources are read as text: about 3,200 files are
#   opened.
# Versions: transformers 5.19.0, tokenizers 0.23.3, Python 3.11. PyTorch is not needed.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" transformers==5.19.0 tokenizers==0.23.3
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

cat >"$folder/show.py" <<'PYTHON'
"""Count the source files that are opened while transformers is imported and first used."""
import importlib
import importlib.metadata
import sys
from collections import Counter

opened: Counter[str] = Counter()


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Count a file of a model's folder; compiled files end in .pyc."""
    path = arguments[0] if event == "open" else None
    if isinstance(path, str) and "/transformers/models/" in path and path.endswith(".py"):
        opened[path] += 1


def files() -> int:
    """Return how many files were opened since the last call."""
    number = len(opened)
    opened.clear()
    return number


for name in ("transformers", "tokenizers"):
    print(name, importlib.metadata.version(name))
sys.addaudithook(watch)
importlib.import_module("tokenizers")
control = files()
transformers = importlib.import_module("transformers")
first = files()
transformers.AutoConfig
second = files()
transformers.AutoTokenizer
third = files()
print(f"opened: tokenizers {control}, import {first}, first name {second}, next name {third}")
if control:
    sys.exit("changed: importing tokenizers reads files of transformers")
if first < 1000:
    sys.exit("changed: importing transformers does not read the files of its models")
if second < first:
    sys.exit("changed: the first name does not read the files again")
if third > 100:
    sys.exit("changed: the next name reads the files again, too")
print("as described: the source of every model is read at import, and again for the first name")
PYTHON
"$python" "$folder/show.py" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
