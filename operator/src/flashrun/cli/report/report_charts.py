"""The charts of a report, drawn by plotly.

Names come from environments and configs. Plotly reads tags in texts, so names are escaped.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from flashrun.api import evaluation
from flashrun.api.records import STARTUP
from flashrun.cli.report.run_timeline import Span, Stage

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Curve = Mapping[int, float]
"""A metric by step."""

POINTS: Final = 1000
"""Most points of a curve; of longer ones, points at equal distances are drawn."""
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Colours of runs, which people with any colour vision can tell apart (Okabe and Ito, 2008)."""
_STAGE_COLOURS: Final = {
    Stage.QUEUED: "#d0d7de",
    Stage.STARTING: "#f0e442",
    Stage.PULLING: "#e69f00",
    Stage.MODEL: "#56b4e9",
    Stage.PACKAGES: "#cc79a7",
    Stage.TRAINING: "#0072b2",
    Stage.UPLOADING: "#009e73",
    Stage.ENDING: "#6e7781",
}
_LAYOUT: Final[dict[str, Any]] = {
    "template": "plotly_white",
    "height": 300,
    "margin": {"l": 56, "r": 16, "t": 40, "b": 44},
    "legend": {"orientation": "h", "y": -0.25},
    "hovermode": "x unified",
    "font": {"family": "system-ui, sans-serif", "size": 13},
}


def curve_chart(title: str, curves: Mapping[str, Curve]) -> "Figure":
    """Return a chart with one curve per run; ``curves`` has them by the run's name."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for place, (run, curve) in enumerate(curves.items()):
        steps = thin(sorted(curve))
        figure.add_trace(
            graph_objects.Scatter(
                x=steps,
                y=[curve[step] for step in steps],
                name=html.escape(run),
                mode="lines+markers" if len(steps) <= 60 else "lines",
                line={"color": COLOURS[place % len(COLOURS)], "width": 2},
            )
        )
    figure.update_layout(
        **_LAYOUT,
        title={"text": html.escape(title), "x": 0.02},
        showlegend=len(curves) > 1,
        xaxis_title="step",
    )
    return figure


def timeline_chart(runs: Mapping[str, Sequence[Span]]) -> "Figure":
    """Return a chart of how each run spent its time, in minutes since it was created."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for stage in Stage:
        spans = [(run, span) for run, all_spans in runs.items() for span in all_spans
                 if span.stage is stage]  # fmt: skip
        figure.add_trace(
            graph_objects.Bar(
                orientation="h",
                y=[html.escape(run) for run, _ in spans],
                base=[span.begin / 60 for _, span in spans],
                x=[(span.end - span.begin) / 60 for _, span in spans],
                name=stage.value,
                marker_color=_STAGE_COLOURS[stage],
                customdata=[_attempt_text(span) for _, span in spans],
                hovertemplate=f"{stage.value}%{{customdata}}: %{{x:.2f}} min<extra></extra>",
            )
        )
    layout = _LAYOUT | {
        "height": 130 + 40 * len(runs),
        "hovermode": "closest",
        "barmode": "overlay",
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom", "traceorder": "normal"},
    }
    figure.update_layout(
        **layout,
        xaxis={"title": "minutes since the run was created", "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "automargin": True, "ticksuffix": "  "},
        showlegend=True,
    )
    return figure


def _attempt_text(span: Span) -> str:
    return "" if span.attempt is None else f", attempt {span.attempt}"


def thin(steps: Sequence[int], most: int = POINTS) -> list[int]:
    """Return at most ``most`` of the steps at equal distances, with the first and the last one."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]


def order_metrics(keys: Iterable[str], judged: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the metrics that a report shows first, and the others in alphabetical order.

    First are those by which runs are judged, then reward, loss and the loss on held-out examples.
    How long the start of an attempt took is in the timeline alone: it has one value per attempt.
    """
    known = {key for key in keys if not key.startswith(STARTUP)}
    leading = [evaluation.metric_key(metric) for metric in judged]
    leading += ["reward", "loss", evaluation.metric_key(evaluation.LOSS)]
    first = [key for key in dict.fromkeys(leading) if key in known]
    return first, sorted(known - set(first))
