#!/usr/bin/env bash
# What it shows: a CSV dataset for the freesolo SDK with an empty cell in the column "output". The
#   SDK takes it for a labelled row whose answer is the empty text: the row passes
#   build_conversations, which refuses rows without an answer, and a model learns to say nothing.
#   The same row in JSON, where it can say null, is refused.
# Why it matters: a dataset that is labelled in part teaches silence when it is saved as CSV.
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
"""One labelled row and one without a label, as CSV and as JSON lines."""
import csv
import importlib.metadata
import json
import sys
from pathlib import Path

from freesolo.datasets import load_dataset
from freesolo.environments import EnvironmentSingleTurn, RewardResult

folder = Path(sys.argv[1])
rows = [{"input": "2 + 2", "output": "4"}, {"input": "3 + 3", "output": None}]


class Sums(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def score_response(self, example, response_text):
        return RewardResult(score=float(response_text == example.output))


def build(path: Path) -> str:
    try:
        conversations = load_dataset(path).build_conversations(Sums(), "")
    except ValueError as error:
        return f"refused: {error}"
    return f"learned: {[messages[-1]['content'] for messages in conversations]}"


with (folder / "train.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, ["input", "output"])
    writer.writeheader()
    writer.writerows(rows)
(folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

print("freesolo", importlib.metadata.version("freesolo"))
lines, table = build(folder / "train.jsonl"), build(folder / "train.csv")
print("JSON lines:", lines)
print("CSV:       ", table)
if not lines.startswith("refused:"):
    sys.exit("changed: a row without an answer is not refused any more")
if table != "learned: ['4', '']":
    sys.exit("changed: the empty cell is not learned as an empty answer any more")
print("as described: the empty cell is an answer, and the model learns it")
PYTHON
"$python" "$folder/show.py" "$folder"
