#!/usr/bin/env bash
# What it shows: the same tensors with the same five entries of metadata, written by safetensors in eight
#   processes and twice in one. Tensors keep their order; entries of the metadata are written in another
#   order each time, even within a process, so that nearly every file has another SHA-256. With one
#   entry, such as the {"format": "pt"} of transformers and PEFT, all files are equal.
# Why it matters: caches, signatures and tests that compare digests take an unchanged model for a new one.
# Versions: safetensors 0.8.0, numpy 2.4.6, Python 3.11.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" safetensors==0.8.0 numpy==2.4.6

cat >"$folder/write.py" <<'PYTHON'
"""Print the header of a file with one entry of metadata or with five."""
import hashlib
import json
import sys

import numpy as np
from safetensors.numpy import save

entries = {name: "x" for name in ["format", "step", "model", "rank", "seed"][: int(sys.argv[1])]}
for _ in range(2):
    written = save({"b": np.zeros(2), "a": np.ones(2)}, metadata=entries)
    length = int.from_bytes(written[:8], "little")
    header = json.loads(written[8 : 8 + length])
    print(hashlib.sha256(written).hexdigest()[:12], *header.pop("__metadata__"), "/", *header)
PYTHON

cat >"$folder/show.py" <<'PYTHON'
"""Write the same file in eight processes, with one entry of metadata and with five."""
import importlib.metadata
import subprocess
import sys

print("safetensors", importlib.metadata.version("safetensors"), "- digest, metadata / tensors:")
seen = {}
for entries in ("1", "5"):
    command = [sys.executable, sys.argv[1], entries]
    lines = [
        line
        for _ in range(8)
        for line in subprocess.run(command, text=True, capture_output=True, check=True).stdout.splitlines()
    ]
    seen[entries] = set(lines)
    print(f"{entries} in metadata, {len(lines)} files, {len(seen[entries])} different:")
    print(*(f"  {line}" for line in sorted(seen[entries])[:3]), sep="\n")
if len(seen["1"]) != 1 or len({line.partition("/")[2] for line in seen["5"]}) != 1:
    sys.exit("changed: files with one entry, or the order of tensors, differ")
if len(seen["5"]) == 1:
    sys.exit("changed: files with five entries are equal")
print("as described: the order of several entries is another one each time")
PYTHON
"$python" "$folder/show.py" "$folder/write.py"
