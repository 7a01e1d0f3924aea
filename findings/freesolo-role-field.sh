#!/usr/bin/env bash
# What it shows: the freesolo SDK decides by the key "role" whether a structured answer is a
#   conversation. Lists of records whose fields happen to be called "role" and "content" (speakers of
#   a transcript, parties of a contract) are taken for messages: the model is not taught to write the
#   list, the records become turns of speakers that chat templates do not know. Records with "role"
#   and without "content" are refused. With any other name instead of "role" the list is learned.
# Why it matters: extraction tasks have such fields, and nothing warns.
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
"""The same answer with three names for one field."""
import importlib.metadata
import json
import sys

from freesolo.datasets import load_dataset, target_messages


def learned(output: object) -> str:
    [example] = load_dataset([{"input": "Who says what?", "output": output}]).examples
    try:
        messages = target_messages(example.output)
    except ValueError as error:
        return f"refused: {error}"
    return "; ".join(f"{message['role']} says {message['content']!r}" for message in messages)


print("freesolo", importlib.metadata.version("freesolo"))
answers = [
    [{"speaker": "buyer", "content": "Too dear."}, {"speaker": "seller", "content": "It is new."}],
    [{"role": "buyer", "content": "Too dear."}, {"role": "seller", "content": "It is new."}],
    [{"role": "buyer", "name": "Ada"}, {"role": "seller", "name": "Bob"}],
]
results = [learned(answer) for answer in answers]
for answer, result in zip(answers, results, strict=True):
    print(json.dumps(answer))
    print("   ->", result)
if not results[0].startswith("assistant says '[\\n"):
    sys.exit("changed: a list of records is not one answer of the assistant")
if results[1] != "buyer says 'Too dear.'; seller says 'It is new.'":
    sys.exit("changed: records with role and content are not taken for messages")
if not results[2].startswith("refused:"):
    sys.exit("changed: records with role alone are not refused")
print("as described: the name of a field decides whether the answer is an answer")
PYTHON
"$python" "$folder/show.py"
