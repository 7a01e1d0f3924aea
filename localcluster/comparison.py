"""The stages of a training side by side: what a model answered to examples that it never saw.

The answers are those of the runs' own evaluations, as `flash rollouts --eval` prints them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from localcluster.steps import FatalError

SHOWN = 3
LONGEST = 28
"""Characters of an answer that are shown."""

Answer = Mapping[str, Any]
"""One evaluated example: `prompt`, `completion`, `example` and `metrics`."""


class Best(NamedTuple):
    """The best checkpoint of several runs."""

    run: str
    step: int
    metric: str
    score: float


def read_answers(output: str) -> list[Answer]:
    """Return the answers in the output of `flash rollouts`: one JSON object per line."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def read_best(statuses: Mapping[str, str]) -> Best:
    """Return the best checkpoint of runs, by the output of `flash status -o json` of each.

    Of equal scores, the earlier run's counts.
    """
    found = []
    for run, output in statuses.items():
        evaluation = json.loads(output)["status"].get("evaluation") or {}
        if best := evaluation.get("best"):
            found.append(Best(run, best["step"], evaluation["metric"], float(best["score"])))
    if not found:
        raise FatalError(f"none of {', '.join(statuses)} has a checkpoint that was evaluated")
    return max(found, key=lambda best: best.score)


def table(stages: Mapping[str, Sequence[Answer]]) -> str:
    """Return the means of the metrics, and the first answers, one column per stage."""
    answers = list(stages.values())
    rows = [[f"{len(answers[0])} held-out examples", *stages]]
    for metric in answers[0][0]["metrics"]:
        rows.append([metric, *(f"{_mean(metric, stage):.2f}" for stage in answers)])
    by_example = [{answer["example"]: answer for answer in stage} for stage in answers]
    for answer in answers[0][:SHOWN]:
        question = answer["prompt"][-1]["content"]
        given = (stage[answer["example"]]["completion"] for stage in by_example)
        rows.append([question, *(_shortened(text) for text in given)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _mean(metric: str, answers: Sequence[Answer]) -> float:
    return sum(float(answer["metrics"][metric]) for answer in answers) / len(answers)


def _shortened(answer: str) -> str:
    line = " ".join(answer.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
