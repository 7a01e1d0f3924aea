"""A base model and its adapters side by side: what they answer to examples they never saw."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcluster import folders, images
from localcluster.lifecycle import DevCluster
from localcluster.steps import StepRunner

SCRIPT = "compare.py"
"""Of the example: it answers dataset/eval.jsonl with a model and its adapters."""
SHOWN = 3
LONGEST = 28
"""Characters of an answer that are shown."""

Compared = dict[str, dict[str, Any]]
"""For each stage, `metrics` and `examples`."""


def compare(
    local: DevCluster, model: Path, example: Path, adapters: Mapping[str, Path], steps: StepRunner
) -> Compared:
    """Return the answers of the model and of each adapter, computed in the trainer image."""
    root = folders.repository()
    mounts = {
        model: "/mnt/model",
        root / example: "/mnt/example",
        **{folder: f"/mnt/{stage}" for stage, folder in adapters.items()},
    }
    stages = [f"{stage}=/mnt/{stage}" for stage in adapters]
    words = ["python3", f"/mnt/example/{SCRIPT}", "/mnt/model", *stages]
    output = images.run_in_trainer(local, words, mounts, steps)
    found: Compared = json.loads(output.strip().rpartition("\n")[2])
    return found


def table(found: Compared) -> str:
    """Return the means of the metrics, and the first answers, one column per stage."""
    stages = list(found)
    first = found[stages[0]]
    count = len(first["examples"])
    rows = [[f"{count} held-out examples", *stages]]
    for name in first["metrics"]:
        rows.append([name, *(f"{found[stage]['metrics'][name]:.2f}" for stage in stages)])
    for place in range(min(SHOWN, count)):
        question = first["examples"][place]["question"]
        answers = (found[stage]["examples"][place]["answer"] for stage in stages)
        rows.append([question, *(_shortened(answer) for answer in answers)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _shortened(answer: str) -> str:
    line = " ".join(answer.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
