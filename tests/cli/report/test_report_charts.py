"""The charts of a report."""

from flashrun.cli.report.report_charts import curve_chart, order_metrics, thin, timeline_chart
from flashrun.cli.report.run_timeline import Span, Stage


def test_a_chart_has_one_curve_per_run_and_a_legend_for_several() -> None:
    one = curve_chart("loss", {"a": {2: 0.5, 1: 1.0}})
    two = curve_chart("loss", {"a": {1: 1.0}, "b": {1: 2.0}})

    assert (one.data[0].x, one.data[0].y) == ((1, 2), (1.0, 0.5))
    assert [trace.name for trace in two.data] == ["a", "b"]
    assert two.data[0].line.color != two.data[1].line.color
    assert (one.layout.showlegend, two.layout.showlegend) == (False, True)


def test_names_are_text_and_not_the_tags_that_plotly_reads() -> None:
    figure = curve_chart("env/<b>x</b>", {"<a href='x'>": {1: 1.0}})
    assert figure.layout.title.text == "env/&lt;b&gt;x&lt;/b&gt;"
    assert "<" not in figure.data[0].name


def test_a_long_curve_keeps_its_first_and_last_step() -> None:
    steps = thin(range(50_000), 1000)
    assert (len(steps), steps[0], steps[-1]) == (1000, 0, 49_999)
    assert steps == sorted(set(steps))
    assert thin([1, 2, 3]) == [1, 2, 3]


def test_a_timeline_has_the_minutes_of_each_stage() -> None:
    figure = timeline_chart({"a": [Span(Stage.QUEUED, 0, 120), Span(Stage.TRAINING, 120, 600, 3)]})
    bars = {bar.name: bar for bar in figure.data}

    assert (bars["training"].base, bars["training"].x) == ((2.0,), (8.0,))
    assert bars["training"].customdata == (", attempt 3",)
    assert bars["uploading"].x == ()
    assert figure.layout.showlegend  # a run that never started has one stage, and it has a name


def test_what_runs_are_judged_by_comes_first() -> None:
    keys = ["seconds/step", "loss", "eval/exact", "eval/loss", "eval/score", "grad_norm"]
    keys.append("startup/model")  # in the timeline
    assert order_metrics(keys, ["exact"]) == (
        ["eval/exact", "loss", "eval/loss"],
        ["eval/score", "grad_norm", "seconds/step"],
    )
