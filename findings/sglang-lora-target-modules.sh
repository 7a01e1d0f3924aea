#!/usr/bin/env bash
# What it shows: how SGLang reads target_modules of an adapter. It takes a list of names, and refuses a
#   pattern, which PEFT accepts. It joins in_proj_q, in_proj_k, in_proj_v and in_proj_z of linear attention
#   into its fused layer in_proj_qkvz. The layer that transformers calls in_proj_qkv is not joined.
# Why it matters: an adapter with a pattern cannot be served, and of an adapter of Qwen3.5 the weights of
#   in_proj_qkv and in_proj_z have no layer to go to.
# Versions: SGLang 0.5.23, Python 3.11. Its package needs a GPU to be imported, so the function that reads
#   the names, and the names in the one that joins weights, are taken out of its wheel.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  --python-version 3.12 --dest "$folder" sglang==0.5.23

cat >"$folder/show.py" <<'PYTHON'
"""What SGLang makes of names, of a pattern, and of the layers of linear attention."""
import ast
import sys
import typing
import zipfile
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("sglang-*.whl")


def function(module: str, name: str) -> ast.FunctionDef:
    tree = ast.parse(zipfile.ZipFile(wheel).read(f"sglang/srt/lora/{module}.py"))
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


reader = function("utils", "get_normalized_target_modules")
values = dict(vars(typing))
exec(compile(ast.Module([reader], []), "utils", "exec"), values)
read = values["get_normalized_target_modules"]


def answer(modules) -> str:
    try:
        return ", ".join(sorted(read(modules)))
    except ValueError as error:
        return f"refused: {error}"


names = answer(["q_proj", "down_proj"])
pattern = answer(r".*\.(q_proj|down_proj)")
joined = {
    text.value
    for text in ast.walk(function("lora", "_normalize_in_proj_qkvz"))
    if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value.startswith("in_proj")
}
print("SGLang 0.5.23")
print("a list of names:", names)
print("a pattern:      ", pattern)
print("names it joins: ", ", ".join(sorted(joined)))
print("in_proj_qkv is read as", answer(["in_proj_qkv"]))
if names != "down_proj, qkv_proj":
    sys.exit("changed: a list of names is read in another way")
if not pattern.startswith("refused"):
    sys.exit("changed: a pattern is accepted")
if any(name.rstrip(".") == "in_proj_qkv" for name in joined) or answer(["in_proj_qkv"]) != "in_proj_qkv":
    sys.exit("changed: in_proj_qkv is joined")
print("as described: names are accepted, a pattern is not, and in_proj_qkv is not joined")
PYTHON
"$python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
