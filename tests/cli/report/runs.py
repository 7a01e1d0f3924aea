"""A run as a report shows it, with text in it that would be markup elsewhere."""

from datetime import UTC, datetime, timedelta
from typing import Any

from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.stored_rollouts import StepRollouts
from flashrun.cli.report.report_data import ReportData

CREATED = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOW = CREATED + timedelta(hours=1)
HOSTILE = "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'"
"""Text of a model: no page may take it for markup."""
SPEC = {
    "model": "Qwen/Qwen3.5-4B",
    "algorithm": "grpo",
    "environment": {"id": "your-org/your-env", "params": {"note": HOSTILE}},
    "train": {"steps": 40},
}


STARTUP = {
    "startup/model": 60.0,
    "startup/packages": 30.0,
    "startup/imports": 10.0,
    "startup/loading": 20.0,
    "startup/first_step": 15.0,
}
"""What the first row of an attempt says about the time before it."""


def at(minutes: float) -> datetime:
    return CREATED + timedelta(minutes=minutes)


def attempt(number: int, start: float, end: float | None, reason: str = "") -> dict[str, Any]:
    return {
        "number": number,
        "pod": f"pod-{number}",
        "start": at(start).isoformat(),
        **({} if end is None else {"end": at(end).isoformat()}),
        **({"reason": reason} if reason else {}),
    }


def flash_run(name: str = "sums", *, deleted: bool = False, **status: Any) -> FlashRun:
    metadata = {"name": name, "namespace": "team-a", "uid": "u"}
    if not deleted:
        metadata["creationTimestamp"] = CREATED.isoformat()
    return FlashRun.from_manifest({"metadata": metadata, "spec": SPEC, "status": status})


def row(step: int, minutes: float, number: int = 1, **values: float) -> MetricsRow:
    named = {key.replace("__", "/"): value for key, value in values.items()}
    return MetricsRow(step=step, attempt=number, time=at(minutes), values=named)


def rollouts(step: int, count: int = 4) -> StepRollouts:
    rows = [
        {
            "step": step,
            "prompt": [{"role": "user", "content": f"{number} + 1"}],
            "completion": f"{HOSTILE} answer-{number}",
            "score": 1 - number / count,
            "metrics": {"exact": 1.0, "<b>bold</b>": 0.5},
        }
        for number in range(count)
    ]
    return StepRollouts(step, rows)


def trained(name: str = "sums", slope: float = 0.01) -> ReportData:
    """A run of 40 steps with an evaluation every ten, in two attempts."""
    rows = [row(0, 5, eval__score=0.1, eval__examples=64)]
    for step in range(1, 41):
        number, minutes = (1, 5 + step / 4) if step <= 20 else (2, 20 + step / 4)
        values = {"reward": slope * step, "loss": 2 / step, "env/<b>bold</b>": 0.5}
        values |= {"seconds/step": 15.0} | (STARTUP if step in (1, 21) else {})
        if step % 10 == 0:
            values |= {"eval/score": slope * step, "eval/examples": 64}
        rows.append(MetricsRow(step=step, attempt=number, time=at(minutes), values=values))
    saved = [
        {"ref": f"{name}/step-{step}", "step": step, "bytes": 2048, "score": f"{slope * step:.2f}",
         "createdTime": at(step).isoformat()}
        for step in (40, 20)
    ]  # fmt: skip
    run = flash_run(
        name,
        phase="Succeeded",
        startTime=at(2).isoformat(),
        completionTime=at(31).isoformat(),
        attempts=[attempt(1, 2, 11, "Preempted"), attempt(2, 20, 31, "Completed")],
        checkpoints=saved,
        checkpointCount=2,
        evaluation={
            "metric": "score",
            "examples": 64,
            "baseline": {"step": 0, "score": "0.1"},
            "last": {"step": 40, "score": f"{slope * 40:.2f}"},
            "best": {"step": 40, "score": f"{slope * 40:.2f}"},
        },
    )
    return ReportData(run, rows, "score", (rollouts(1), rollouts(40)), (rollouts(0, 80),))
