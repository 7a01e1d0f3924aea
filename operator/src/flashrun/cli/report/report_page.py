"""A report as one HTML file that needs no network.

Everything that a model, an environment or a user wrote is escaped by the template, which also
forbids the page to load anything.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any, Final

from flashrun.api.resource import CheckpointStatus, FlashRunStatus
from flashrun.cli.cluster.metrics_history import merge_steps
from flashrun.cli.cluster.stored_rollouts import Rollout, rollout_value
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.printable_text import printable_text
from flashrun.cli.output.rollout_text import number_text
from flashrun.cli.report.report_charts import (
    curve_chart,
    order_metrics,
    timeline_chart,
)
from flashrun.cli.report.report_data import ReportData
from flashrun.cli.report.run_timeline import run_spans

ROLLOUTS_PER_STEP: Final = 64
"""Most rollouts of one step in a report."""
_LONGEST_TEXT: Final = 20_000
"""Longest text of a prompt or completion, in characters."""
_CHART_OPTIONS: Final = {"responsive": True, "displaylogo": False}


def build_page(runs: Sequence[ReportData], now: datetime) -> str:
    """Return the report about ``runs`` as HTML.

    Raises:
        ImportError: plotly or Jinja2 is not installed.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    steps = {data.run.name: merge_steps(data.metrics) for data in runs}
    keys = dict.fromkeys(
        key for by_step in steps.values() for row in by_step.values() for key in row
    )
    first, others = order_metrics(keys, dict.fromkeys(data.metric for data in runs))
    spans = {data.run.name: run_spans(data.run, data.metrics, now) for data in runs}
    timed = {name: run for name, run in spans.items() if run}
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).from_string(resources.files(__package__).joinpath("report.html").read_text("utf-8"))
    return template.render(
        title=", ".join(data.run.name for data in runs),
        made=_time_text(now),
        plotly=Markup(get_plotlyjs()),
        timeline=_embed(timeline_chart(timed)) if timed else "",
        first=[_embed(curve_chart(key, _curves(steps, key))) for key in first],
        others=[_embed(curve_chart(key, _curves(steps, key))) for key in others],
        runs=[_run_view(data, now) for data in runs],
    )


def _embed(figure: Any) -> Any:
    """Return a chart as HTML; plotly escapes its data for a script."""
    from markupsafe import Markup

    options = {"full_html": False, "include_plotlyjs": False, "config": _CHART_OPTIONS}
    return Markup(figure.to_html(**options))


def _curves(
    steps: Mapping[str, Mapping[int, Mapping[str, float]]], key: str
) -> dict[str, dict[int, float]]:
    """Return the curve of a metric for each run that has it."""
    curves = {
        run: {step: row[key] for step, row in by_step.items() if key in row}
        for run, by_step in steps.items()
    }
    return {run: curve for run, curve in curves.items() if curve}


def _run_view(data: ReportData, now: datetime) -> dict[str, Any]:
    """Return what the template shows of one run."""
    run, status = data.run, data.run.status
    rows = [
        # A report is read later, too: an age would be wrong then.
        (label, _time_text(run.created) if label == "Created" and run.created else text)
        for label, text in formatting.summary(run, now)
    ]
    if data.deleted:
        rows = [row for row in rows if row[0] != "Phase"]
        rows.insert(1, ("State", "The FlashRun was deleted; this is what storage has of the run."))
    return {
        "name": run.name,
        "phase": "deleted" if data.deleted else str(status.phase),
        "summary": rows,
        "has_metrics": bool(data.metrics),
        "checkpoints": [
            (item.ref, _score_text(item, status), formatting.format_size(item.bytes),
             _time_text(item.created_time))
            for item in sorted(status.checkpoints, key=lambda item: item.step)
        ],
        "metric": data.metric,
        "spec": terminal.to_yaml(run.spec.to_manifest()),
        "resolved": terminal.to_yaml(
            status.resolved.model_dump(mode="json", by_alias=True, exclude_none=True)
        )
        if status.resolved
        else "",
        "groups": [
            *(_group(f"evaluation after step {found.step}", found.rows) for found in data.answered),
            *(_group(f"training step {found.step}", found.rows) for found in data.sampled),
        ],
    }  # fmt: skip


def _time_text(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")


def _score_text(checkpoint: CheckpointStatus, status: FlashRunStatus) -> str:
    best = status.evaluation.best if status.evaluation else None
    is_best = best is not None and best.step == checkpoint.step
    return f"{checkpoint.score or ''}{' (best)' if is_best else ''}"


def _group(name: str, rows: Sequence[Rollout]) -> dict[str, Any]:
    """Return the rollouts of one step, the lowest score first."""
    ordered = sorted(rows[:ROLLOUTS_PER_STEP], key=_score)
    return {"name": name, "rollouts": list(map(_rollout_view, ordered)), "stored": len(rows)}


def _score(row: Rollout) -> float:
    value = rollout_value(row, "score")
    return float("-inf") if value is None else value


def _rollout_view(row: Rollout) -> dict[str, Any]:
    metrics = row.get("metrics")
    numbers = {"score": row.get("score"), **(metrics if isinstance(metrics, dict) else {})}
    prompt = row.get("prompt")
    messages = prompt if isinstance(prompt, list) else [prompt]
    return {
        "example": printable_text(row.get("example") or ""),
        "numbers": [(printable_text(name), number_text(value)) for name, value in numbers.items()],
        "error": printable_text(row.get("error") or ""),
        "messages": [_message_view(message) for message in messages],
        "completion": _text(row.get("completion")),
    }


def _message_view(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        return "prompt", _text(message)
    others = {key: value for key, value in message.items() if key not in ("role", "content")}
    text = _text(message.get("content"))
    calls = f"\n{_text(others)}" if any(others.values()) else ""
    return printable_text(message.get("role", "message")), text + calls


def _text(value: Any) -> str:
    text = printable_text("" if value is None else value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… (cut)"
