#!/usr/bin/env bash
# What it shows: a dataset of reasoning-gym with seed 42 and one with seed 43, of 8 puzzles each. For 101
#   of its tasks puzzle i of the second is puzzle i + 1 of the first: a puzzle follows from the sum of seed
#   and index. Seeds that are as far apart as the size, 42 and 50, do not share them.
# Why it matters: "train on seed 42, hold out seed 43" holds out what is trained on, and the score on new
#   puzzles is one on known ones.
# Versions: reasoning-gym 0.1.25, Python 3.11. One of its dependencies comes as source and needs a C
#   compiler and Python's headers.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" reasoning-gym==0.1.25

cat >"$folder/show.py" <<'PYTHON'
"""Questions of every task with two neighbouring seeds, and with two seeds that are far apart."""
import contextlib
import importlib.metadata
import io
import sys

import reasoning_gym
from reasoning_gym.factory import DATASETS

SIZE = 8
SHIFTED = 101


def questions(task: str, seed: int) -> list[str]:
    puzzles = reasoning_gym.create_dataset(task, size=SIZE, seed=seed)
    with contextlib.redirect_stdout(io.StringIO()):  # the task bf prints dots
        return [puzzles[index]["question"] for index in range(SIZE)]


print("reasoning-gym", importlib.metadata.version("reasoning-gym"))
tasks = sorted(set(DATASETS) - {"composite"})  # composite is made of other tasks
first = {task: questions(task, 42) for task in tasks}
shifted = [task for task in tasks if questions(task, 43)[:-1] == first[task][1:]]
print(f"seeds 42 and 43: {len(shifted)} of {len(tasks)} tasks have the same puzzles, shifted by one")
print("not shifted:", ", ".join(sorted(set(tasks) - set(shifted))))
for seed in (42, 43, 50):
    answers = reasoning_gym.create_dataset("chain_sum", size=SIZE, seed=seed)
    print(f"chain_sum, seed {seed}:", *(answers[index]["answer"] for index in range(6)), "…")
shared = len(set(first["chain_sum"]) & set(questions("chain_sum", 43)))
apart = len(set(first["chain_sum"]) & set(questions("chain_sum", 50)))
print(f"chain_sum shares {shared} of {SIZE} questions with seed 43, and {apart} with seed 50")
if len(shifted) != SHIFTED or (shared, apart) != (SIZE - 1, 0):
    sys.exit(f"changed: expected {SHIFTED} tasks whose puzzles are shifted by one")
print("as described: neighbouring seeds give the same puzzles")
PYTHON
"$python" -W ignore "$folder/show.py"
