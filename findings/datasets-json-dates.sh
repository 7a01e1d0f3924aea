#!/usr/bin/env bash
# What it shows: a JSON Lines file for SFT whose answers are dates and times, read by datasets. If every
#   text of a column reads as a date, the column becomes timestamps: "2024-05-01" is then
#   datetime(2024, 5, 1, 0, 0), and the offset of "2024-05-01T10:00:00+02:00" is applied and gone. One
#   answer that is no date keeps all of them texts. The same rows from Dataset.from_list are texts, and so
#   are those of a CSV file.
# Why it matters: the type of a column, and what a model learns to answer, depends on its other rows: a
#   filter or another split changes it.
# Versions: datasets 5.2.0, pyarrow 26.0.1, Python 3.11.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" datasets==5.2.0 pyarrow==26.0.1
export HF_HUB_OFFLINE=1 HF_DATASETS_CACHE="$folder/cache" HF_HUB_DISABLE_TELEMETRY=1

cat >"$folder/show.py" <<'PYTHON'
"""Questions about dates, with and without an answer that is none, from two formats and from a list."""
import csv
import importlib.metadata
import json
import sys
from pathlib import Path

from datasets import Dataset, disable_progress_bars, load_dataset

FOLDER = Path(sys.argv[1])
ROWS = [
    {"prompt": "When does the shop open?", "day": "2024-05-01", "time": "2024-05-01T10:00:00+02:00"},
    {"prompt": "And when does it close?", "day": "2024-05-02", "time": "2024-05-02T18:00:00+02:00"},
]
UNKNOWN = [{"prompt": "Who owns it?", "day": "unknown", "time": "unknown"}]


def show(title: str, dataset: Dataset) -> tuple[str, str]:
    """Return the types of both columns."""
    row = dataset[0]
    print(f"{title}: {row['day']!r}, {row['time']!r}")
    return dataset.features["day"].dtype, dataset.features["time"].dtype


def lines(name: str, rows: list[dict[str, str]]) -> Dataset:
    path = FOLDER / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset("json", data_files=str(path), split="train")


def table(name: str, rows: list[dict[str, str]]) -> Dataset:
    path = FOLDER / f"{name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return load_dataset("csv", data_files=str(path), split="train")


disable_progress_bars()
print("datasets", importlib.metadata.version("datasets"), "- pyarrow", importlib.metadata.version("pyarrow"))
dates = show("JSON, dates only         ", lines("dates", ROWS))
mixed = show("JSON, one other answer   ", lines("mixed", ROWS + UNKNOWN))
listed = show("Dataset.from_list        ", Dataset.from_list(ROWS))
comma = show("CSV, dates only          ", table("dates", ROWS))
if not {*mixed, *listed, *comma} <= {"string", "large_string"}:
    sys.exit("changed: the controls are no texts")
if dates != ("timestamp[s]", "timestamp[s]"):
    sys.exit(f"changed: answers that are all dates are {dates}")
print("as described: the texts are timestamps, if all of them are dates")
PYTHON
"$python" "$folder/show.py" "$folder"
